"""Pose accuracy on folders of videos, whoever made them, by two conventions that are never mixed.

- `driving`: against the driving keypoints, from files; what the generator was told.
- `redetected`: against what the same detector finds in the real (or driving) video; as published for images with LISA.

Beside the generated clips stand a ceiling (the detector on the real videos against the driving keypoints: its own
error) and a floor (the true poses of other clips: what someone reaches who ignores the pose).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from eval.bootstrap import RESAMPLES
from eval.clip_pairs import RESIZE, ClipPair, ClipPairs, find_pairs
from eval.pose_accuracy.found_poses import FoundPoses
from eval.pose_accuracy.layouts import common_layout, to_layout
from eval.pose_accuracy.pose_metrics import AP_RESAMPLES, PoseScores, PoseTally
from eval.protocol import UnderProtocol, clips_digest
from lisa_video.data.geometry import Geometry
from lisa_video.data.video_io import VideoReadError
from lisa_video.errors import UserError
from lisa_video.pose.accuracy import THRESHOLDS
from lisa_video.pose.keypoints import Keypoints, load_keypoints
from lisa_video.pose.oks import AREA, PERSON_SCORE
from lisa_video.pose.person_size import DESCRIPTIONS, Normaliser

Convention = Literal["driving", "redetected"]
CONVENTIONS: dict[Convention, str] = {
    "driving": "driving keypoints from files",
    "redetected": "keypoints found by the same detector in the real video",
}
MIN_CLIPS = 2


@dataclass(frozen=True)
class PoseSettings:
    """How poses are compared.

    Attributes:
        thresholds: of PCK, fractions of the normaliser.
        normaliser: see `person_sizes`.
        max_frames: of a clip; None: all.
        stride: take every so many-th frame.
        driving_size: (H, W) of the frames to which driving keypoints belong; None: of the real video, or of the
            generated one where there is none.
        seed: of the bootstrap and of the floor.
    """

    thresholds: tuple[float, ...] = THRESHOLDS
    normaliser: Normaliser = "box"
    max_frames: int | None = None
    stride: int = 1
    driving_size: tuple[int, int] | None = None
    seed: int = 0


@dataclass(frozen=True)
class PoseResult(UnderProtocol):
    """One convention's scores, with the ceiling and the floor by the same protocol.

    Attributes:
        protocol: everything that the numbers depend on.
        scores: of the generated clips.
        ceiling: of the real videos; None where they are the truth themselves, or are not given.
        floor: of the true poses of other clips.
    """

    scores: PoseScores
    ceiling: PoseScores | None
    floor: PoseScores


@dataclass(frozen=True)
class PoseReport:
    """Everything that `eval pose` found out."""

    results: dict[Convention, PoseResult]
    skipped: list[tuple[str, str]]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "results": {name: result.to_json() for name, result in self.results.items()},
            "skipped": [list(item) for item in self.skipped],
            "notes": self.notes,
        }


@dataclass(frozen=True)
class _Clip:
    """Poses of one clip, all in pixels of the generated frames and of one layout."""

    pair: ClipPair
    found: Keypoints
    driving: Keypoints | None
    real: Keypoints | None


def score_poses(
    generated: str | Path,
    finder: FoundPoses,
    skeleton: str,
    *,
    driving: str | Path | None = None,
    real: str | Path | None = None,
    settings: PoseSettings,
    progress: bool = True,
) -> PoseReport:
    """Find the poses in generated videos and compare them with true ones.

    Args:
        generated: folder of generated videos.
        finder: the detector.
        skeleton: the detector's layout of joints.
        driving: folder of keypoint files (.npz) with the names of the videos.
        real: folder of real videos with the names of the generated ones.
        settings: how to compare.
        progress: show a bar.

    Raises:
        UserError: neither driving poses nor real videos, no names in common, fewer than two clips that can be used, or
            no visible joints in any of them.
    """
    if driving is None and real is None:
        raise UserError("nothing to compare with", where=generated, remedy="give --driving, --real or both; see --help")
    pairs = find_pairs(generated, real, max_frames=settings.max_frames, stride=settings.stride)
    poses = _driving_poses(driving, pairs, settings) if driving is not None else {}
    layout = common_layout([skeleton, *(one.skeleton for one in poses.values())])
    clips = []
    for one in tqdm(pairs.pairs, desc="find poses", unit="clip", disable=not progress):
        try:
            clips.append(_find(one, finder, layout, poses.get(one.name), settings))
        except VideoReadError as error:
            pairs.skip(one.name, str(error))
    pairs.pairs = [clip.pair for clip in clips]
    if len(clips) < MIN_CLIPS:
        raise UserError(
            f"{len(clips)} clips could be compared, at least {MIN_CLIPS} are needed",
            where=generated,
            remedy="see the warnings; give more videos",
        )
    if not any(clip.found.score.any() for clip in clips):
        pairs.note("the detector found nobody in any generated clip")
    conventions: list[Convention] = []
    if poses:
        conventions.append("driving")
    if real is not None:
        conventions.append("redetected")
    results = {name: _result(name, clips, pairs, finder, layout, settings) for name in conventions}
    return PoseReport(results, pairs.skipped, pairs.notes)


def _driving_poses(folder: str | Path, pairs: ClipPairs, settings: PoseSettings) -> dict[str, Keypoints]:
    """Keypoints of each pair, every `stride`-th frame, in their own pixels; pairs without are dropped or shortened."""
    root = Path(folder)
    files = {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.npz"))}
    common = [one for one in pairs.pairs if one.name in files]
    if not common:
        raise UserError(
            f"no keypoint file (.npz) of {len(files)} has the name of a generated video, such as {pairs.pairs[0].name}",
            where=folder,
            remedy="give keypoint files the names of the generated videos",
        )
    if missing := len(pairs.pairs) - len(common):
        pairs.note(f"{missing} generated videos have no keypoint file and were left out")
    poses, kept, different = {}, [], 0
    for one in common:
        try:
            keypoints = load_keypoints(files[one.name])
        except UserError as error:
            pairs.skip(one.name, str(error))
            continue
        poses[one.name] = keypoints.frames(slice(0, None, settings.stride))
        length = min(one.num_frames, poses[one.name].num_frames)
        different += length < one.num_frames or (settings.max_frames is None and length < poses[one.name].num_frames)
        kept.append(replace(one, num_frames=length))
    if different:
        pairs.note(
            f"{different} keypoint files differ in length from their videos: the common first frames are compared"
        )
    pairs.pairs = [one for one in kept if one.num_frames > 0]
    return poses


def _find(one: ClipPair, finder: FoundPoses, layout: str, driving: Keypoints | None, settings: PoseSettings) -> _Clip:
    taken = {"frames": one.num_frames, "stride": one.stride, "size": list(one.size)}
    found = finder(one.generated, one.generated_frames(), one.fps, taken)
    real = finder(one.real, one.real_frames(), one.fps, {**taken, "resize": RESIZE}) if one.real is not None else None
    if driving is not None:
        geometry = Geometry(settings.driving_size or one.real_size, one.size, mirror=False)
        driving = geometry.apply_keypoints(to_layout(driving.frames(slice(0, one.num_frames)), layout))
    return _Clip(one, to_layout(found, layout), driving, to_layout(real, layout) if real is not None else None)


def _result(
    convention: Convention,
    clips: Sequence[_Clip],
    pairs: ClipPairs,
    finder: FoundPoses,
    layout: str,
    settings: PoseSettings,
) -> PoseResult:
    truths = {clip.pair.name: clip.driving if convention == "driving" else clip.real for clip in clips}
    scores, floor, ceiling = (PoseTally(layout, settings.thresholds, settings.normaliser) for _ in range(3))
    others = _other_clips([clip.pair for clip in clips], settings.seed)
    with_ceiling = convention == "driving" and all(clip.real is not None for clip in clips)
    for clip in clips:
        one, truth = clip.pair, truths[clip.pair.name]
        assert truth is not None
        scores.add(one.name, clip.found, truth, one.fps)
        other = others[one.name]
        known = truths[other.name]
        assert known is not None
        _add_floor(floor, one, truth, other, known)
        if with_ceiling and clip.real is not None:
            ceiling.add(one.name, clip.real, truth, one.fps)
    if not scores.visible:
        raise UserError(
            f"no visible joints whose person has a size, by the {settings.normaliser} normaliser, in the "
            f"{CONVENTIONS[convention]}",
            remedy="look at the keypoints; choose --normalise box; or use another detector",
        )
    protocol = _protocol(convention, truths, pairs, finder, layout, settings)
    return PoseResult(
        protocol, scores.scores(settings.seed), ceiling.scores(settings.seed) if with_ceiling else None,
        floor.scores(settings.seed),
    )  # fmt: skip


def _other_clips(pairs: Sequence[ClipPair], seed: int) -> dict[str, ClipPair]:
    """For each clip another one: once around a random circle of all clips."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    return {pairs[place].name: pairs[follower] for place, follower in zip(order, np.roll(order, -1), strict=True)}


def _add_floor(floor: PoseTally, one: ClipPair, truth: Keypoints, other: ClipPair, pose: Keypoints) -> None:
    frames = slice(0, min(truth.num_frames, pose.num_frames))
    pose = Geometry(other.size, one.size, mirror=False).apply_keypoints(pose.frames(frames))
    floor.add(one.name, pose, truth.frames(frames), one.fps)


def _protocol(
    convention: Convention,
    truths: Mapping[str, Keypoints | None],
    pairs: ClipPairs,
    finder: FoundPoses,
    layout: str,
    settings: PoseSettings,
) -> dict[str, Any]:
    digest = hashlib.sha256()
    for name in sorted(truths):
        pose = truths[name]
        assert pose is not None
        digest.update(pose.xy.tobytes() + pose.score.tobytes())
    known: dict[str, Any] = {"truth_digest": f"sha256:{digest.hexdigest()}"} if convention == "driving" else {}
    place = f"{settings.driving_size[1]} x {settings.driving_size[0]}" if settings.driving_size else "real video"
    return {
        "metric": "pose accuracy on video",
        "clips": len(truths),
        "clips_digest": clips_digest(list(truths)),
        **pairs.protocol,
        "resize": RESIZE,
        "truth": f"{CONVENTIONS[convention]}, joints with score >= 0.5",
        **known,
        "driving_pixels": f"{place}, or generated frames without one" if convention == "driving" else "not used",
        **finder.protocol,
        "joints": layout,
        "normaliser": DESCRIPTIONS[settings.normaliser],
        "thresholds": list(settings.thresholds),
        "average": "micro, over clips, frames, people and joints; missing people are misses",
        "people": "matched by Hungarian assignment on 1 - IoU of keypoint boxes",
        "oks": f"area of the {AREA}; score of a person: {PERSON_SCORE}; at most 20 a frame; AP over 0.50:0.05:0.95",
        "speed": "thirds of the true joints by speed, in median box diagonals per second",
        "floor": f"true poses of other clips, once around a random circle, seed {settings.seed}",
        "interval": f"95 % percentile bootstrap over clips, {RESAMPLES} draws (OKS-AP {AP_RESAMPLES}), "
        f"seed {settings.seed}",
    }
