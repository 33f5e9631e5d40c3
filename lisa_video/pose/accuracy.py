"""Pose accuracy (PCK): how many of the true joints were found near enough, as counts that can be added up.

    PCK@t = #{visible true joints j : |p_j - q_j| <= t d} / #{visible true joints},   d = size of the person

`p` predicted and `q` true joint, in pixels; the size is the diagonal of the box of the person's visible true joints
in this frame, if no other normaliser is chosen. Sources: Yang and Ramanan, "Articulated Human Detection with Flexible
Mixtures of Parts", PAMI 2013 (PCK); the diagonal of the keypoint box and the matching of people follow the image
protocol published with LISA (arXiv 2606.27192): people are matched by Hungarian assignment on 1 - IoU of keypoint
boxes, unmatched are misses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lisa_video.pose.joint_errors import JointErrors, joint_errors
from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.person_size import Normaliser

THRESHOLDS = (0.05, 0.1, 0.2)
"""Fractions of the person's size at which accuracy is reported; the published image protocol uses 0.2."""


@dataclass(frozen=True, eq=False)
class PCKCounts:
    """What PCK is made of, per frame index and joint; add counts of clips and ranks before dividing.

    Attributes:
        thresholds: T fractions of the normaliser.
        correct: (T, F, K) visible true joints found within each threshold.
        visible: (F, K) visible true joints, the denominator.
        located: (F, K) visible true joints of matched people for which the prediction names a place at all.
        error_px: (F, K) sum of distances over the located joints, pixels.
        error_diagonal: (F, K) sum of distances over the located joints, fractions of the normaliser (by default the
            diagonal of the box).
    """

    thresholds: tuple[float, ...]
    correct: Int[np.ndarray, "T F K"]
    visible: Int[np.ndarray, "F K"]
    located: Int[np.ndarray, "F K"]
    error_px: Float[np.ndarray, "F K"]
    error_diagonal: Float[np.ndarray, "F K"]

    @classmethod
    def zero(cls, thresholds: Sequence[float], num_frames: int, num_joints: int) -> PCKCounts:
        """Counts of nothing, the neutral element of addition."""
        slots = (num_frames, num_joints)
        return cls(
            thresholds=tuple(float(threshold) for threshold in thresholds),
            correct=np.zeros((len(thresholds), *slots), np.int64),
            visible=np.zeros(slots, np.int64),
            located=np.zeros(slots, np.int64),
            error_px=np.zeros(slots, np.float64),
            error_diagonal=np.zeros(slots, np.float64),
        )

    def __add__(self, other: PCKCounts) -> PCKCounts:
        """Counts of both; the shorter one is taken to have counted nothing in the frames that it lacks."""
        if self.thresholds != other.thresholds:
            raise ValueError(f"counts at thresholds {self.thresholds} and {other.thresholds} cannot be added")
        frames = max(len(self.visible), len(other.visible))
        mine, theirs = self._padded(frames), other._padded(frames)
        return PCKCounts(self.thresholds, *(a + b for a, b in zip(mine, theirs, strict=True)))

    def _padded(self, frames: int) -> tuple[np.ndarray, ...]:
        missing = frames - len(self.visible)
        arrays = (self.correct, self.visible, self.located, self.error_px, self.error_diagonal)
        return tuple(np.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, missing), (0, 0)]) for a in arrays)

    def accuracy(self, threshold: float) -> float:
        """PCK in [0, 1] over everything counted (micro average); NaN when no true joint was visible."""
        return _ratio(self._correct(threshold).sum(), self.visible.sum())

    def accuracy_per_joint(self, threshold: float) -> Float[np.ndarray, " K"]:
        """PCK of each joint over all frames; NaN for a joint that was never visible."""
        return _ratios(self._correct(threshold).sum(axis=0), self.visible.sum(axis=0))

    def accuracy_per_frame(self, threshold: float) -> Float[np.ndarray, " F"]:
        """PCK of each frame index over all joints; NaN for a frame index without visible joints."""
        return _ratios(self._correct(threshold).sum(axis=1), self.visible.sum(axis=1))

    @property
    def mean_error_px(self) -> float:
        """Mean distance of the located joints, pixels; NaN when there are none."""
        return _ratio(self.error_px.sum(), self.located.sum())

    @property
    def mean_error_diagonal(self) -> float:
        """Mean distance of the located joints, fractions of the normaliser; NaN when there are none."""
        return _ratio(self.error_diagonal.sum(), self.located.sum())

    def _correct(self, threshold: float) -> np.ndarray:
        if threshold not in self.thresholds:
            raise ValueError(f"threshold {threshold} was not counted, only {self.thresholds}")
        found: np.ndarray = self.correct[self.thresholds.index(threshold)]
        return found

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON values, for files and for gathering over ranks."""
        return {
            "thresholds": list(self.thresholds),
            "correct": self.correct.tolist(),
            "visible": self.visible.tolist(),
            "located": self.located.tolist(),
            "error_px": self.error_px.tolist(),
            "error_diagonal": self.error_diagonal.tolist(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PCKCounts:
        """The counts that `to_json` wrote."""
        return cls(
            thresholds=tuple(values["thresholds"]),
            correct=np.array(values["correct"], np.int64),
            visible=np.array(values["visible"], np.int64),
            located=np.array(values["located"], np.int64),
            error_px=np.array(values["error_px"], np.float64),
            error_diagonal=np.array(values["error_diagonal"], np.float64),
        )


def total(counts: Iterable[PCKCounts]) -> PCKCounts:
    """The sum of one or more counts."""
    first, *others = counts
    return sum(others, start=first)


def count_correct(
    predicted: Keypoints,
    truth: Keypoints,
    thresholds: Sequence[float] = THRESHOLDS,
    normaliser: Normaliser = "box",
) -> PCKCounts:
    """Compare predicted with true poses of the same frames; what counts and what is a miss, see `joint_errors`.

    Args:
        predicted: F frames, any number of people, pixels of the same frames as `truth`.
        truth: F frames, any number of people.
        thresholds: fractions of the normaliser.
        normaliser: see `person_sizes`.
    """
    return counts_of(joint_errors(predicted, truth, normaliser), thresholds)


def counts_of(errors: JointErrors, thresholds: Sequence[float] = THRESHOLDS) -> PCKCounts:
    """Count the joints of a clip whose errors are known."""
    located = errors.counted & np.isfinite(errors.distance_px)
    distance = np.where(located, errors.distance_px, 0.0)
    hits = np.array([errors.hits(float(threshold)) for threshold in thresholds])  # (T,F,P,K)
    return PCKCounts(
        thresholds=tuple(float(threshold) for threshold in thresholds),
        correct=hits.sum(axis=2, dtype=np.int64),
        visible=errors.counted.sum(axis=1, dtype=np.int64),
        located=located.sum(axis=1, dtype=np.int64),
        error_px=distance.sum(axis=1),
        error_diagonal=(distance / np.where(errors.size_px > 0, errors.size_px, 1.0)[..., None]).sum(axis=1),
    )


def _ratio(part: float | np.number[Any], whole: float | np.number[Any]) -> float:
    return float(part) / float(whole) if whole else float("nan")


def _ratios(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.array([_ratio(p, w) for p, w in zip(part, whole, strict=True)], np.float64)
