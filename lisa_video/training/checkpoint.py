"""Checkpoints to resume from: complete or absent, newest found by itself, old ones pruned.

A checkpoint is written under a temporary name by all ranks and renamed by rank 0 once everyone is done, so a folder
with a final name is always complete. It holds what changes in training; the frozen weights are not in it.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any, final

from lisa_video import distributed
from lisa_video.errors import UserError
from lisa_video.training.ema import MovingAverage
from lisa_video.training.engine import Engine

_NAME = re.compile(r"^step-(\d{8})$")


@final
class Checkpoints:
    """The checkpoint folder of a run.

    Args:
        folder: `run_dir/checkpoints`.
        keep: how many of the newest checkpoints stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def newest(self) -> Path | None:
        """The complete checkpoint with the highest step, if there is one."""
        found = self._all()
        return found[-1] if found else None

    def save(self, engine: Engine, average: MovingAverage, step: int, facts: dict[str, Any]) -> Path:
        """Write a checkpoint; every rank must call it.

        Args:
            engine: weights and optimizer.
            average: moving average (the same on every rank).
            step: optimizer steps done.
            facts: small JSON-like values; returned by `load`.
        """
        final, draft = self.folder / f"step-{step:08d}", self.folder / f"step-{step:08d}.tmp"
        if distributed.is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            for half_written in self.folder.glob("*.tmp"):
                shutil.rmtree(half_written)
        distributed.barrier()
        state = {"step": step, "world_size": distributed.world_size(), "average": average.state_dict(), **facts}
        engine.save(str(self.folder), draft.name, state)
        distributed.barrier()
        if distributed.is_main():
            shutil.rmtree(final, ignore_errors=True)
            os.replace(draft, final)
            for old in self._all()[: -self.keep]:
                gone = old.with_suffix(".tmp")  # never half of one under a final name
                os.replace(old, gone)
                shutil.rmtree(gone)
        distributed.barrier()
        return final

    def load(self, engine: Engine, average: MovingAverage) -> dict[str, Any] | None:
        """Load the newest complete checkpoint; None if there is none.

        Raises:
            UserError: it was written by another number of ranks.
        """
        newest = self.newest()
        if newest is None:
            return None
        shards = len(list(newest.glob("*_optim_states.pt")))
        if engine.config.training.zero_stage > 0 and shards != distributed.world_size():
            raise UserError(
                f"checkpoint written by {shards} ranks, this run has {distributed.world_size()}",
                where=newest,
                remedy="resume with the same number of ranks, or start a new run_dir",
            )
        state = engine.load(str(self.folder), newest.name)
        average.load_state_dict(state["average"])
        return state

    def _all(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.match(path.name))
