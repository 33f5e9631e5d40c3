"""What a report is made of: the arms of a comparison, and the clips that are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eval.pose_accuracy.scores import Scores
from eval.protocol import require_same_protocol
from eval.runs.evaluation import Evaluation
from lisa_video.pose.keypoints import Keypoints


@dataclass(frozen=True)
class ArmResult:
    """One way of generating the clips, with its scores and the facts of its training run.

    Attributes:
        name: as it stands in the report, for example "Baseline" or "LISA".
        evaluation: everything that is known of its clips.
        videos: clip_id -> (F, H, W, 3) uint8, at least the clips that are shown.
        metrics: rows of `metrics.jsonl`; used are step, denoising (else loss), lisa_ratio, pose_gap and
            pck_<threshold>.
        steps: optimiser steps; None for an arm without training.
        training_seconds: wall time of training.
        parameters: trained parameters.
        config_yaml: the resolved run config.
    """

    name: str
    evaluation: Evaluation
    videos: Mapping[str, np.ndarray] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    steps: int | None = None
    training_seconds: float | None = None
    parameters: int | None = None
    config_yaml: str = ""

    @property
    def scores(self) -> Scores:
        """Pose accuracy by the first detector: that of the headline."""
        return self.evaluation.poses[0]


def require_comparable(arms: Sequence[ArmResult]) -> None:
    """Refuse arms whose numbers were measured by other protocols, part by part.

    Raises:
        UserError: two protocols differ; names the items.
    """
    for parts in (lambda arm: arm.evaluation.poses, lambda arm: arm.evaluation.distances):
        for same in zip(*map(parts, arms), strict=True):
            require_same_protocol([part.protocol for part in same])
    require_same_protocol([arm.evaluation.pixels.protocol for arm in arms])
    require_same_protocol([arm.evaluation.loss.protocol for arm in arms if arm.evaluation.loss is not None])


@dataclass(frozen=True)
class ShownClip:
    """A clip of the report's gallery.

    Attributes:
        clip_id: its name in the manifest.
        truth: (F, H, W, 3) uint8 RGB; its first frame is the reference picture.
        driving: poses in pixels of these frames.
        fps: frames per second.
        place: where the clip stands among all clips by the last arm's score: "worst", "median", "best".
    """

    clip_id: str
    truth: np.ndarray
    driving: Keypoints
    fps: float
    place: str = ""
