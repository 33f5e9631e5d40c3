"""`Scores`: what one arm's generated clips are worth against the truth, with the protocol that it was measured by."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.bootstrap import Estimate, paired_difference_estimate
from eval.protocol import require_same_protocol
from lisa_video.errors import UserError


@dataclass(frozen=True)
class ClipScore:
    """One clip's share of the scores; `correct` has one count per threshold."""

    clip_id: str
    visible: int
    correct: tuple[int, ...]
    psnr_db: float


@dataclass(frozen=True)
class Scores:
    """Scores of one arm. PCK values lie in [0, 1]; dictionaries are keyed by the threshold, such as "0.1".

    Attributes:
        protocol: everything that the numbers depend on besides the arm.
        protocol_id: short name of the protocol.
        pck: micro average over clips, frames and joints, with 95 % interval over clips.
        pck_per_joint: K values each; NaN for a joint that was never visible.
        pck_per_frame: F values each.
        error_px: mean distance of located joints, pixels.
        error_diagonal: the same in fractions of the box diagonal.
        ceiling: PCK of the same detector on the TRUE frames: more than this cannot be told from perfect.
        frechet: distance of generated from true clips.
        frechet_floor: distance of one half of the true clips from the other half; NaN below four clips.
        frechet_floor_clips: clips in each half.
        psnr_db: mean over clips, decibels.
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
    frechet: float
    frechet_floor: float
    frechet_floor_clips: tuple[int, int]
    psnr_db: float
    clips: tuple[ClipScore, ...]

    @property
    def thresholds(self) -> list[float]:
        """Fractions of the box diagonal, as in the protocol."""
        return [float(key) for key in self.pck]

    def clip(self, clip_id: str) -> ClipScore:
        """The share of one clip."""
        return next(clip for clip in self.clips if clip.clip_id == clip_id)

    def to_json(self) -> dict[str, Any]:
        """JSON values; NaN becomes null."""
        values: dict[str, Any] = _without_nan(asdict(self))
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Scores:
        """The scores that `to_json` wrote."""
        with_nan = _with_nan(dict(values), keep=("protocol",))
        with_nan["pck"] = {key: Estimate(**value) for key, value in with_nan["pck"].items()}
        with_nan["ceiling"] = {key: Estimate(**value) for key, value in with_nan["ceiling"].items()}
        with_nan["frechet_floor_clips"] = tuple(with_nan["frechet_floor_clips"])
        with_nan["clips"] = tuple(
            ClipScore(**{**clip, "correct": tuple(clip["correct"])}) for clip in with_nan["clips"]
        )
        return cls(**with_nan)


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


def save_scores(path: str | Path, scores: Scores) -> None:
    """Write the scores as JSON, under a temporary name first."""
    path = Path(path)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(json.dumps(scores.to_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)


def load_scores(path: str | Path) -> Scores:
    """Read a scores file.

    Raises:
        UserError: the file is missing or is not one of ours.
    """
    try:
        return Scores.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read scores ({error})", where=path, remedy="run the evaluation again") from error


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _with_nan(value: Any, keep: Sequence[str] = ()) -> Any:
    if isinstance(value, dict):
        return {key: item if key in keep else _with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return math.nan if value is None else value
