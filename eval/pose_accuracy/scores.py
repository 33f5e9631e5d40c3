"""`Scores`: how well one arm's clips follow the pose, by one detector, with the protocol that it was measured by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.bootstrap import Estimate, paired_difference_estimate
from eval.json_files import with_nan
from eval.protocol import require_same_protocol


@dataclass(frozen=True)
class ClipScore:
    """One clip's share of the scores; `correct` has one count per threshold."""

    clip_id: str
    visible: int
    correct: tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """Pose accuracy of one arm. PCK values lie in [0, 1]; dictionaries are keyed by the threshold, such as "0.1".

    Attributes:
        protocol: everything that the numbers depend on besides the arm.
        protocol_id: short name of the protocol.
        pck: micro average over clips, frames and joints, with 95 % interval over clips.
        pck_per_joint: K values each; NaN for a joint that was never visible.
        pck_per_frame: F values each.
        error_px: mean distance of located joints, pixels.
        error_diagonal: the same in fractions of the box diagonal.
        ceiling: PCK of the same detector on the TRUE frames: more than this cannot be told from perfect.
        chance: PCK of the driving poses of other clips: what someone reaches who moves, but ignores the pose.
        clips: share of each clip, in the order in which they came.
    """

    protocol: dict[str, Any]
    protocol_id: str
    pck: dict[str, Estimate]
    pck_per_joint: dict[str, list[float]]
    pck_per_frame: dict[str, list[float]]
    error_px: float
    error_diagonal: float
    ceiling: dict[str, Estimate]
    chance: dict[str, Estimate]
    clips: tuple[ClipScore, ...]

    @property
    def detector(self) -> str:
        """Name of the detector."""
        return str(self.protocol["detector"])

    @property
    def thresholds(self) -> list[float]:
        """Fractions of the box diagonal, as in the protocol."""
        return [float(key) for key in self.pck]

    def clip(self, clip_id: str) -> ClipScore:
        """The share of one clip."""
        return next(clip for clip in self.clips if clip.clip_id == clip_id)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Scores:
        """The scores that `write_json` wrote."""
        read = with_nan(dict(values), keep=("protocol",))
        for name in ("pck", "ceiling", "chance"):
            read[name] = {key: Estimate(**value) for key, value in read[name].items()}
        read["clips"] = tuple(ClipScore(**{**clip, "correct": tuple(clip["correct"])}) for clip in read["clips"])
        return cls(**read)


def threshold_key(threshold: float) -> str:
    """How a threshold is written as a key: 0.1 -> "0.1"."""
    return f"{threshold:g}"


def pck_difference(a: Scores, b: Scores, threshold: float, *, seed: int = 0) -> Estimate:
    """PCK of b less PCK of a, with the paired 95 % bootstrap interval over the clips that both were scored on.

    Raises:
        UserError: the scores have different protocols.
    """
    require_same_protocol([a.protocol, b.protocol])
    place = list(a.pck).index(threshold_key(threshold))
    partners = {clip.clip_id: clip for clip in b.clips}
    return paired_difference_estimate(
        np.array([clip.correct[place] for clip in a.clips]),
        np.array([partners[clip.clip_id].correct[place] for clip in a.clips]),
        np.array([clip.visible for clip in a.clips]),
        seed=seed,
    )
