"""Steps whose loss or gradient is not finite: thrown away, their clips named, repeat offenders left out.

The engine decides about a step by the norm of the gradients of all ranks, so all ranks decide alike. A step that is
thrown away keeps its number and its clips: the places of all others in the run stay what they are.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

from torch import Tensor

from lisa_video import distributed
from lisa_video.config.schema import TrainingConfig
from lisa_video.errors import UserError
from lisa_video.objective import LossTerms
from lisa_video.training.metrics import drop_rows_after

_logger = logging.getLogger(__name__)


class Seen(NamedTuple):
    """A clip that took part in a step.

    Attributes:
        clip_id: its name.
        position: its place in the run.
        rank: that computed it.
        finite: whether its own losses are.
    """

    clip_id: str
    position: int
    rank: int
    finite: bool


def seen_clips(clip_ids: Sequence[str], positions: Tensor, terms: LossTerms) -> list[Seen]:
    """The clips of one micro-batch."""
    finite = (terms.denoising + terms.lisa.sum(dim=1)).isfinite().tolist()
    rank = distributed.rank()
    return [Seen(*clip) for clip in zip(clip_ids, positions.tolist(), [rank] * len(finite), finite, strict=True)]


@final
class Trouble:
    """Keeps count of thrown-away steps and of the clips in them; the same on every rank.

    Args:
        run_dir: rank 0 writes `trouble.jsonl` there.
        settings: the limits.
        resumed_at: step of the checkpoint that training goes on from; later rows are dropped.
    """

    def __init__(self, run_dir: Path, settings: TrainingConfig, resumed_at: int) -> None:
        self._file, self._settings = run_dir / "trouble.jsonl", settings
        self.steps = 0
        self._counts: Counter[str] = Counter()
        if distributed.is_main():
            drop_rows_after(self._file, resumed_at)

    @property
    def left_out(self) -> frozenset[str]:
        """Clips that were in too many such steps."""
        return frozenset(clip for clip, count in self._counts.items() if count >= self._settings.quarantine_after)

    def note(self, step: int, own: Sequence[Seen]) -> None:
        """Note a step that was thrown away; every rank must call it.

        Where the loss itself is not finite, the clips are known. Where only the gradient is not, all clips of the
        step are suspects, and the innocent ones soon differ from the guilty.

        Args:
            step: its number.
            own: this rank's clips of the step.
        """
        everyone = [Seen(*clip) for part in distributed.gather([tuple(clip) for clip in own]) for clip in part]
        guilty = [clip for clip in everyone if not clip.finite]
        what, suspects = ("loss", guilty) if guilty else ("gradient", everyone)
        before = self.left_out
        self.steps += 1
        self._counts.update({clip.clip_id for clip in suspects})
        newly = sorted(self.left_out - before)
        if distributed.is_main():
            named = [{"clip_id": clip.clip_id, "position": clip.position, "rank": clip.rank} for clip in suspects]
            with open(self._file, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "not_finite": what, "clips": named, "left_out": newly}) + "\n")
            _logger.warning(
                "step %d is thrown away, its %s is not finite; clips: %s; such steps so far: %d of at most %d%s",
                *(step, what, ", ".join(sorted({clip.clip_id for clip in suspects}))),
                *(self.steps, self._settings.max_nonfinite),
                f"; left out from now on: {', '.join(newly)}" if newly else "",
            )

    @property
    def is_too_much(self) -> bool:
        """Whether the run has to stop."""
        return self.steps >= self._settings.max_nonfinite

    def error(self) -> UserError:
        """What to say when it stops."""
        worst = ", ".join(f"{clip} ({count})" for clip, count in self._counts.most_common(5))
        return UserError(
            f"{self.steps} steps had a loss or gradient that is not finite; the clips most often in them: {worst}",
            where=self._file,
            remedy="look at these clips; if they are sound, lower optimizer.lr or use training.precision=fp32 in a new "
            "run; raise training.max_nonfinite to go on from the checkpoint that was saved",
        )

    def state_dict(self) -> dict[str, Any]:
        """Counts, for a checkpoint."""
        return {"steps": self.steps, "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.steps, self._counts = state["steps"], Counter(state["counts"])
