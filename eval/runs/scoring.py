"""Scoring one arm, one measure at a time: found poses -> `Scores`, pixels -> `PixelScores`, features -> `Distance`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from eval.bootstrap import RESAMPLES, Estimate, ratio_estimate
from eval.distances.features import FeatureExtractor
from eval.distances.frechet import FeatureStatistics, frechet_distance
from eval.distances.frechet_estimates import DRAWS, SPLITS, frechet_interval, real_floor
from eval.distances.kernel_distance import KernelDistance, kernel_distance
from eval.pose_accuracy.found_poses import detector_protocol
from eval.pose_accuracy.layouts import common_layout, to_layout
from eval.pose_accuracy.scores import ClipScore, Scores, threshold_key
from eval.protocol import clips_digest, protocol_id
from lisa_video.errors import UserError
from lisa_video.pose.accuracy import THRESHOLDS, PCKCounts, count_correct, total
from lisa_video.pose.detector import PoseDetector
from lisa_video.pose.keypoints import Keypoints

MAX_PSNR_DB = 100.0
"""What an identical clip counts, so that a mean over clips stays finite."""
FEWEST_CLIPS = 2


class PosedClip(NamedTuple):
    """Poses of one clip, all in pixels of its frames.

    Attributes:
        clip_id: its name in the manifest.
        found: by the detector, in the generated frames.
        found_true: by the same detector, in the true frames.
        driving: what the clip was generated from.
    """

    clip_id: str
    found: Keypoints
    found_true: Keypoints
    driving: Keypoints


@dataclass(frozen=True)
class PixelScores:
    """Likeness to the true frames, for self-driven clips.

    Attributes:
        protocol: everything that the numbers depend on besides the arm.
        protocol_id: short name of the protocol.
        psnr_db: of each clip, by its name.
    """

    protocol: dict[str, Any]
    protocol_id: str
    psnr_db: dict[str, float]

    @property
    def mean_psnr_db(self) -> float:
        """Mean over clips."""
        return float(np.mean(list(self.psnr_db.values())))


@dataclass(frozen=True)
class Distance:
    """Distance of the generated clips from the true ones as sets, by the features of one network.

    Attributes:
        label: "FVD" for I3D's logits, else "Fréchet".
        protocol: everything that the numbers depend on besides the arm.
        protocol_id: short name of the protocol.
        frechet: squared Frechet distance, with the spread that other clips would give; see `frechet_interval`.
        kernel: squared kernel distance, which few clips do not bias.
        floor: Frechet distance of random halves of the true clips; NaN below four clips.
        clips: in each set.
        dimension: of the features.
    """

    label: str
    protocol: dict[str, Any]
    protocol_id: str
    frechet: Estimate
    kernel: KernelDistance
    floor: float
    clips: int
    dimension: int


def pose_scores(
    clips: Sequence[PosedClip],
    detector: PoseDetector,
    *,
    protocol: Mapping[str, Any],
    thresholds: Sequence[float] = THRESHOLDS,
    seed: int = 0,
) -> Scores:
    """Score found poses.

    Args:
        clips: of one length.
        detector: that found them.
        protocol: further items on which the numbers depend: sampling steps, guidance, seeds, data digest, frame size.
        thresholds: of PCK, fractions of the box diagonal.
        seed: of the bootstrap.

    Raises:
        UserError: fewer than two clips, no visible joint in any of them, or a protocol item that would overwrite ours.
    """
    _require_clips([clip.clip_id for clip in clips])
    layout = common_layout([detector.skeleton, *(clip.driving.skeleton for clip in clips)])
    driving = [to_layout(clip.driving, layout) for clip in clips]

    def counts(found: Sequence[Keypoints]) -> list[PCKCounts]:
        pairs = zip(found, driving, strict=True)
        return [count_correct(to_layout(one, layout), truth, thresholds) for one, truth in pairs]

    generated = counts([clip.found for clip in clips])
    if not any(count.visible.any() for count in generated):
        raise UserError("no clip with visible joints to score", remedy="evaluate clips that show a person")
    ours = {
        "clips": len(clips),
        "clips_digest": clips_digest([clip.clip_id for clip in clips]),
        "frames": driving[0].num_frames,
        "pck_truth": "driving keypoints, joints with score >= 0.5",
        "pck_normaliser": "diagonal of the box of the visible true keypoints, per frame",
        "pck_average": "micro, over clips, frames and joints; people matched by Hungarian assignment on 1 - IoU",
        "pck_thresholds": [float(threshold) for threshold in thresholds],
        **detector_protocol(detector),
        "chance": "driving pose of the next clip",
        "interval": f"95 % percentile bootstrap over clips, {RESAMPLES} draws, seed {seed}",
    }
    together, whole = _joined(ours, protocol), total(generated)
    keys = [(threshold_key(value), float(value)) for value in thresholds]
    return Scores(
        protocol=together,
        protocol_id=protocol_id(together),
        pck=_estimates(generated, seed),
        pck_per_joint={key: whole.accuracy_per_joint(value).tolist() for key, value in keys},
        pck_per_frame={key: whole.accuracy_per_frame(value).tolist() for key, value in keys},
        error_px=whole.mean_error_px,
        error_diagonal=whole.mean_error_diagonal,
        ceiling=_estimates(counts([clip.found_true for clip in clips]), seed),
        chance=_estimates(counts([*driving[1:], driving[0]]), seed),
        clips=tuple(
            ClipScore(clip.clip_id, int(count.visible.sum()), tuple(count.correct.sum(axis=(1, 2)).tolist()))
            for clip, count in zip(clips, generated, strict=True)
        ),
    )


def pixel_scores(psnr: Mapping[str, float], *, protocol: Mapping[str, Any]) -> PixelScores:
    """PSNR of clips by their names, with the protocol.

    Raises:
        UserError: fewer than two clips, or a protocol item that would overwrite ours.
    """
    _require_clips(list(psnr))
    ours = {
        "clips": len(psnr),
        "clips_digest": clips_digest(list(psnr)),
        "psnr": "all frames of a clip together, mean over clips",
    }
    together = _joined(ours, protocol)
    return PixelScores(together, protocol_id(together), dict(psnr))


def distance_between(
    generated: Mapping[str, Float[np.ndarray, " D"]],
    true: Mapping[str, Float[np.ndarray, " D"]],
    extractor: FeatureExtractor,
    *,
    protocol: Mapping[str, Any],
    seed: int = 0,
) -> Distance:
    """Distance of two sets of features of the same clips, by their names.

    Raises:
        UserError: fewer than two clips, features that are not finite, or a protocol item that would overwrite ours.
    """
    names = [name for name in generated if name in true]
    _require_clips(names)
    fake, real = (np.array([rows[name] for name in names], np.float64) for rows in (generated, true))
    fake_statistics, real_statistics = (FeatureStatistics(extractor.dimension) for _ in range(2))
    fake_statistics.update(fake)
    real_statistics.update(real)
    value = frechet_distance(real_statistics, fake_statistics)
    spread = frechet_interval(real, fake, seed=seed)
    ours = {
        "clips": len(names),
        "clips_digest": clips_digest(names),
        "features": extractor.protocol,
        "covariance": "unbiased, float64",
        "interval": f"95 % bootstrap over clips of both sets, {DRAWS} draws, centred, seed {seed}",
        "kernel": "unbiased squared MMD over all pairs, (x.y / D + 1)^3; error by jackknife",
        "floor": f"random halves of the true clips, mean of {SPLITS} splits, seed {seed}",
    }
    together = _joined(ours, protocol)
    return Distance(
        label="FVD" if extractor.name.startswith("I3D") else "Fréchet",
        protocol=together,
        protocol_id=protocol_id(together),
        frechet=Estimate(value, spread.low, spread.high),
        kernel=kernel_distance(real, fake),
        floor=real_floor(real, seed=seed),
        clips=len(names),
        dimension=extractor.dimension,
    )


def psnr_db(generated: UInt8[np.ndarray, "F H W 3"], truth: UInt8[np.ndarray, "F H W 3"]) -> float:
    """Peak signal-to-noise ratio 10 log10(255² / mean square error) over a whole clip, at most `MAX_PSNR_DB`."""
    error = float(np.mean((generated.astype(np.float64) - truth.astype(np.float64)) ** 2))
    return MAX_PSNR_DB if error == 0 else min(MAX_PSNR_DB, 10 * math.log10(255.0**2 / error))


def _require_clips(names: Sequence[str]) -> None:
    if len(names) < FEWEST_CLIPS:
        raise UserError(
            f"{len(names)} clips to score, at least {FEWEST_CLIPS} are needed",
            remedy="evaluate more held-out clips; look for clips that were left out",
        )
    if len(set(names)) < len(names):
        raise ValueError("a clip was given twice")


def _joined(ours: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    if overlap := sorted(set(ours) & set(others)):
        raise UserError(f"protocol items given twice: {', '.join(overlap)}", remedy="leave them to the scorer")
    return {**ours, **others}


def _estimates(counts: Sequence[PCKCounts], seed: int) -> dict[str, Estimate]:
    visible = np.array([count.visible.sum() for count in counts])
    correct = np.array([count.correct.sum(axis=(1, 2)) for count in counts])  # (N,T)
    return {
        threshold_key(threshold): ratio_estimate(correct[:, place], visible, seed=seed)
        for place, threshold in enumerate(counts[0].thresholds)
    }
