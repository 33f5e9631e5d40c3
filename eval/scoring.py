"""Scoring one arm: generated clips against their truth, one clip at a time -> `Scores`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from eval.bootstrap import RESAMPLES, Estimate, ratio_estimate
from eval.features import FeatureExtractor
from eval.frechet import FeatureStatistics, frechet_distance
from eval.protocol import clips_digest, protocol_id
from eval.scores import ClipScore, Scores, threshold_key
from lisa_video.errors import UserError
from lisa_video.pose.accuracy import THRESHOLDS, PCKCounts, count_correct, total
from lisa_video.pose.detector import PoseDetector
from lisa_video.pose.keypoints import Keypoints

MAX_PSNR_DB = 100.0
"""What an identical clip counts, so that a mean over clips stays finite."""


class GeneratedClip(NamedTuple):
    """One clip to be scored.

    Attributes:
        clip_id: its name in the manifest.
        generated: (F, H, W, 3) uint8 RGB.
        truth: (F, H, W, 3) uint8 RGB, the real clip.
        driving: poses that the clip was generated from, in pixels of these frames.
    """

    clip_id: str
    generated: np.ndarray
    truth: np.ndarray
    driving: Keypoints


def score_clips(
    clips: Iterable[GeneratedClip],
    detector: PoseDetector,
    extractor: FeatureExtractor,
    *,
    protocol: Mapping[str, Any],
    thresholds: Sequence[float] = THRESHOLDS,
    seed: int = 0,
) -> Scores:
    """Score one arm; clips are taken one at a time and not kept.

    Args:
        clips: generated clips with their truth; all of one size and length.
        detector: finds poses in generated and in true frames.
        extractor: features of the Frechet distance.
        protocol: further items on which the numbers depend: sampling steps, guidance, seeds, data digest.
        thresholds: of PCK, fractions of the box diagonal.
        seed: of the bootstrap.

    Raises:
        UserError: fewer than two clips, no visible joint in any of them, features that are not finite, or a protocol
            item that would overwrite one of ours.
    """
    shares, counts, ceilings, shape = [], [], [], None
    generated_features = FeatureStatistics(extractor.dimension)
    true_halves = (FeatureStatistics(extractor.dimension), FeatureStatistics(extractor.dimension))
    for number, clip in enumerate(clips):
        if clip.generated.shape != clip.truth.shape or shape not in (None, clip.truth.shape):
            raise ValueError(f"{clip.clip_id}: shapes {clip.generated.shape}, {clip.truth.shape}, expected {shape}")
        shape = clip.truth.shape
        count = count_correct(detector.detect(clip.generated), clip.driving, thresholds)
        counts.append(count)
        ceilings.append(count_correct(detector.detect(clip.truth), clip.driving, thresholds))
        generated_features.update(extractor.features(clip.generated[None]))
        true_halves[number % 2].update(extractor.features(clip.truth[None]))
        found = tuple(int(value) for value in count.correct.sum(axis=(1, 2)))
        shares.append(ClipScore(clip.clip_id, int(count.visible.sum()), found, psnr_db(clip.generated, clip.truth)))
    if shape is None or not any(share.visible for share in shares):
        raise UserError("no clip with visible joints to score", remedy="evaluate clips that show a person")
    ours = _protocol(shape, detector, extractor, [share.clip_id for share in shares], thresholds, seed)
    if len({share.clip_id for share in shares}) < len(shares):
        raise ValueError("a clip was given twice")
    if overlap := sorted(set(ours) & set(protocol)):
        raise UserError(f"protocol items given twice: {', '.join(overlap)}", remedy="leave them to the scorer")
    together = {**ours, **protocol}
    whole, keys = total(counts), [(threshold_key(value), float(value)) for value in thresholds]
    return Scores(
        protocol=together,
        protocol_id=protocol_id(together),
        pck=_estimates(counts, seed),
        pck_per_joint={key: whole.accuracy_per_joint(value).tolist() for key, value in keys},
        pck_per_frame={key: whole.accuracy_per_frame(value).tolist() for key, value in keys},
        error_px=whole.mean_error_px,
        error_diagonal=whole.mean_error_diagonal,
        ceiling=_estimates(ceilings, seed),
        **_frechet_scores(generated_features, true_halves),
        psnr_db=float(np.mean([share.psnr_db for share in shares])),
        clips=tuple(shares),
    )


def psnr_db(generated: UInt8[np.ndarray, "F H W 3"], truth: UInt8[np.ndarray, "F H W 3"]) -> float:
    """Peak signal-to-noise ratio 10 log10(255² / mean square error) over a whole clip, at most `MAX_PSNR_DB`."""
    error = float(np.mean((generated.astype(np.float64) - truth.astype(np.float64)) ** 2))
    return MAX_PSNR_DB if error == 0 else min(MAX_PSNR_DB, 10 * math.log10(255.0**2 / error))


def _estimates(counts: Sequence[PCKCounts], seed: int) -> dict[str, Estimate]:
    visible = np.array([count.visible.sum() for count in counts])
    correct = np.array([count.correct.sum(axis=(1, 2)) for count in counts])  # (N,T)
    return {
        threshold_key(threshold): ratio_estimate(correct[:, place], visible, seed=seed)
        for place, threshold in enumerate(counts[0].thresholds)
    }


def _frechet_scores(
    generated: FeatureStatistics, true_halves: tuple[FeatureStatistics, FeatureStatistics]
) -> dict[str, Any]:
    first, second = true_halves
    floor = frechet_distance(first, second) if min(first.count, second.count) >= 2 else math.nan
    sizes = (first.count, second.count)
    truth = FeatureStatistics(first.dimension)
    truth.merge(first)
    truth.merge(second)
    return {
        "frechet": frechet_distance(generated, truth), "frechet_floor": floor, "frechet_floor_clips": sizes,
    }  # fmt: skip


def _protocol(
    shape: tuple[int, ...],
    detector: PoseDetector,
    extractor: FeatureExtractor,
    clip_ids: Sequence[str],
    thresholds: Sequence[float],
    seed: int,
) -> dict[str, Any]:
    return {
        "clips": len(clip_ids),
        "clips_digest": clips_digest(clip_ids),
        "frames": shape[0],
        "size": f"{shape[2]} x {shape[1]} pixels (width x height)",
        "pck_truth": "driving keypoints, joints with score >= 0.5",
        "pck_normaliser": "diagonal of the box of the visible true keypoints, per frame",
        "pck_average": "micro, over clips, frames and joints; people matched by Hungarian assignment on 1 - IoU",
        "pck_thresholds": [float(threshold) for threshold in thresholds],
        "detector": detector.name,
        "detector_digest": detector.digest,
        "frechet_features": extractor.protocol,
        "frechet_covariance": "unbiased, float64",
        "frechet_floor": "true clips at even against true clips at odd places",
        "psnr": "all frames of a clip together, mean over clips",
        "interval": f"95 % percentile bootstrap over clips, {RESAMPLES} draws, seed {seed}",
    }
