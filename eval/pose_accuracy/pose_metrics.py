"""`PoseTally`: poses found in generated clips against true poses, clip by clip -> `PoseScores`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from eval.bootstrap import Estimate, clip_draws, estimate, ratio_estimate
from eval.pose_accuracy.layouts import joint_groups
from lisa_video.pose.accuracy import THRESHOLDS, PCKCounts, counts_of
from lisa_video.pose.joint_errors import JointErrors, joint_errors
from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.matching import visible_joints
from lisa_video.pose.oks import OKSMatches, average_precision, match_by_oks
from lisa_video.pose.person_size import Normaliser, person_sizes
from lisa_video.pose.skeleton import skeleton_by_name

SPEEDS = ("slow", "medium", "fast")
"""Thirds of the true joints by their speed."""
AP_RESAMPLES = 1000
"""Bootstrap draws of OKS-AP, which takes a ranking of all people for each."""


@dataclass(frozen=True)
class PoseClip:
    """One clip's share: counts and sums over its frames, people and joints; one count per threshold in tuples.

    Attributes:
        clip_id: its name.
        visible: true joints that count.
        correct: joints found near enough.
        swapped: joints missed that would be hit with left and right exchanged.
        located: joints for which any place was found.
        error: sum of their distances, in sizes of the person.
        error_px: the same in pixels.
        people: true people in all frames.
        missing: those that nobody was matched with.
        unmeasured: those whose size could not be measured, so that their joints do not count.
        extra: people found that were matched with nobody.
        oks: sum of the similarities of the true people; 0 for one that is missing.
        oks_people: true people with an area.
    """

    clip_id: str
    visible: int
    correct: tuple[int, ...]
    swapped: tuple[int, ...]
    located: int
    error: float
    error_px: float
    people: int
    missing: int
    unmeasured: int
    extra: int
    oks: float
    oks_people: int


@dataclass(frozen=True)
class PoseScores:
    """Pose accuracy of a set of clips, with 95 % intervals over clips; keys are thresholds, such as "0.1".

    Attributes:
        pck: share of the true joints that were found near enough; micro average.
        swap_rate: share of the misses that would be hits with left and right exchanged.
        error: mean distance of located joints, in sizes of the person.
        error_px: the same in pixels.
        oks: mean similarity of true people with the best person found; 0 where nobody was.
        oks_ap: COCO's average precision over similarities 0.50 to 0.95.
        oks_ap50: at 0.50.
        oks_ap75: at 0.75.
        pck_per_joint: by name of the joint; NaN for one that was never visible.
        pck_per_group: by part of the body.
        pck_per_frame: by number of the frame.
        pck_per_speed: thirds of the joints by true speed, see `SPEEDS`; NaN without frames per second.
        speed_bounds: speeds between the thirds, box diagonals of the person per second.
        clips: share of each clip.
    """

    pck: dict[str, Estimate]
    swap_rate: dict[str, Estimate]
    error: Estimate
    error_px: Estimate
    oks: Estimate
    oks_ap: Estimate
    oks_ap50: float
    oks_ap75: float
    pck_per_joint: dict[str, dict[str, float]]
    pck_per_group: dict[str, dict[str, float]]
    pck_per_frame: dict[str, list[float]]
    pck_per_speed: dict[str, list[float]]
    speed_bounds: tuple[float, float]
    clips: tuple[PoseClip, ...]

    def total(self, count: str) -> int:
        """Sum of a count over clips, such as `people`, `missing`, `extra`, `unmeasured` or `visible`."""
        return int(sum(getattr(clip, count) for clip in self.clips))


class PoseTally:
    """Adds up clips; memory holds a few bytes a joint and no frames.

    Args:
        skeleton: layout of all keypoints.
        thresholds: of PCK, fractions of the normaliser.
        normaliser: see `person_sizes`.
    """

    def __init__(
        self, skeleton: str = "coco17", thresholds: Sequence[float] = THRESHOLDS, normaliser: Normaliser = "box"
    ) -> None:
        self._skeleton = skeleton_by_name(skeleton)
        self._thresholds, self._normaliser = tuple(float(value) for value in thresholds), normaliser
        self._counts = PCKCounts.zero(self._thresholds, 0, self._skeleton.num_joints)
        self._clips: list[PoseClip] = []
        self._matches: list[OKSMatches] = []
        self._speeds: list[np.ndarray] = []  # of each counted joint
        self._hits: list[np.ndarray] = []  # (T,n) of the same joints

    @property
    def visible(self) -> int:
        """True joints that counted so far."""
        return int(self._counts.visible.sum())

    def add(self, clip_id: str, found: Keypoints, truth: Keypoints, fps: float | None = None) -> None:
        """Count a clip; both in pixels of the same frames.

        Args:
            clip_id: its name.
            found: poses in the generated clip.
            truth: true poses.
            fps: frames per second, for speeds; None: unknown.
        """
        errors = joint_errors(found, truth, self._normaliser)
        matches, counts = match_by_oks(found, truth), counts_of(errors, self._thresholds)
        self._counts = self._counts + counts
        self._matches.append(matches)
        self._clips.append(_share(clip_id, errors, matches, counts))
        if fps is not None:
            self._speeds.append(joint_speeds(truth, fps)[errors.counted].astype(np.float32))
            self._hits.append(np.array([errors.hits(threshold)[errors.counted] for threshold in self._thresholds]))

    def scores(self, seed: int = 0) -> PoseScores:
        """The scores of at least one clip; `seed` is that of the bootstrap."""
        counts, clips = self._counts, tuple(self._clips)
        keys = {f"{threshold:g}": threshold for threshold in self._thresholds}
        correct, swapped = (np.array([getattr(clip, name) for clip in clips]) for name in ("correct", "swapped"))
        visible, located, people = (_column(clips, name) for name in ("visible", "located", "oks_people"))
        bounds, per_speed = self._by_speed()
        ap, ap50, ap75 = self._average_precision(seed)
        return PoseScores(
            pck={key: ratio_estimate(correct[:, place], visible, seed=seed) for place, key in enumerate(keys)},
            swap_rate={
                key: ratio_estimate(swapped[:, place], visible - correct[:, place], seed=seed)
                for place, key in enumerate(keys)
            },
            error=ratio_estimate(_column(clips, "error"), located, seed=seed),
            error_px=ratio_estimate(_column(clips, "error_px"), located, seed=seed),
            oks=ratio_estimate(_column(clips, "oks"), people, seed=seed),
            oks_ap=ap,
            oks_ap50=ap50,
            oks_ap75=ap75,
            pck_per_joint={
                key: dict(zip(self._skeleton.joints, counts.accuracy_per_joint(value).tolist(), strict=True))
                for key, value in keys.items()
            },
            pck_per_group={key: self._by_group(place) for place, key in enumerate(keys)},
            pck_per_frame={key: counts.accuracy_per_frame(value).tolist() for key, value in keys.items()},
            pck_per_speed=dict(zip(keys, per_speed.tolist(), strict=True)),
            speed_bounds=bounds,
            clips=clips,
        )

    def _by_group(self, place: int) -> dict[str, float]:
        correct, visible = self._counts.correct[place].sum(axis=0), self._counts.visible.sum(axis=0)
        return {
            name: float(correct[joints].sum() / visible[joints].sum()) if visible[joints].any() else float("nan")
            for name, joints in joint_groups(self._skeleton.name).items()
        }

    def _by_speed(self) -> tuple[tuple[float, float], Float[np.ndarray, "T 3"]]:
        shares = np.full((len(self._thresholds), len(SPEEDS)), np.nan)
        speeds = np.concatenate([*self._speeds, np.zeros(0, np.float32)])
        known = np.isfinite(speeds)
        if not known.any():
            return (float("nan"), float("nan")), shares
        bounds = np.quantile(speeds[known], [1 / 3, 2 / 3])
        third = np.searchsorted(bounds, speeds[known], side="left")
        hits = np.concatenate(self._hits, axis=1)[:, known]
        for number in np.unique(third):
            shares[:, number] = hits[:, third == number].mean(axis=1)
        return (float(bounds[0]), float(bounds[1])), shares

    def _average_precision(self, seed: int) -> tuple[Estimate, float, float]:
        """AP, and AP50 and AP75 without intervals."""
        each = average_precision(self._matches)[0]
        draws = average_precision(self._matches, clip_draws(len(self._matches), seed, AP_RESAMPLES)).mean(axis=1)
        if np.isnan(each).any():
            return Estimate(*[float("nan")] * 3), float("nan"), float("nan")
        return estimate(float(each.mean()), draws[np.isfinite(draws)]), float(each[0]), float(each[5])


def joint_speeds(truth: Keypoints, fps: float) -> Float[np.ndarray, "F P K"]:
    """How fast each joint moves, in sizes of its person per second; NaN where it is visible in one frame only.

    The speed in a frame is the mean of the steps to the frame before and to the frame after, as far as both ends are
    visible. The size is the median over frames of the box diagonal, so that stretching an arm does not slow it down.
    """
    visible = visible_joints(truth)
    steps = np.linalg.norm(np.diff(truth.xy.astype(np.float64), axis=0), axis=-1)  # (F-1,P,K)
    steps = np.where(visible[1:] & visible[:-1], steps, np.nan)
    beyond = np.full((1, *steps.shape[1:]), np.nan)
    sides = np.stack([np.concatenate([beyond, steps]), np.concatenate([steps, beyond])])
    count = np.isfinite(sides).sum(axis=0)
    step = np.where(count > 0, np.nansum(sides, axis=0) / np.maximum(count, 1), np.nan)
    sizes = person_sizes(truth, "box")
    size = np.array([np.median(column[column > 0]) if (column > 0).any() else np.nan for column in sizes.T])
    speeds: np.ndarray = step * fps / size[:, None]
    return speeds


def _share(clip_id: str, errors: JointErrors, matches: OKSMatches, counts: PCKCounts) -> PoseClip:
    return PoseClip(
        clip_id=clip_id,
        visible=int(counts.visible.sum()),
        correct=tuple(int(value) for value in counts.correct.sum(axis=(1, 2))),
        swapped=tuple(int(errors.swapped(threshold).sum()) for threshold in counts.thresholds),
        located=int(counts.located.sum()),
        error=float(counts.error_diagonal.sum()),
        error_px=float(counts.error_px.sum()),
        people=int(errors.present.sum()),
        missing=int((errors.present & (errors.partner < 0)).sum()),
        unmeasured=int((errors.present & (errors.size_px == 0)).sum()),
        extra=int(errors.extra.sum()),
        oks=float(matches.oks.sum()),
        oks_people=matches.true_people,
    )


def _column(clips: Sequence[PoseClip], name: str) -> np.ndarray:
    return np.array([getattr(clip, name) for clip in clips])
