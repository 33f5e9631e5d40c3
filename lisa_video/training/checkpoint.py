"""Checkpoints to resume from: complete or absent, newest sound one found by itself, old ones pruned.

A checkpoint is written under a temporary name by all ranks while training goes on, and renamed by rank 0 once everyone
is done, so a folder with a final name is complete. It holds what changes in training; the frozen weights are not in it.
"""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from lisa_video import distributed
from lisa_video.config.schema import TrainingConfig
from lisa_video.errors import UserError
from lisa_video.training.checkpoint_files import Writing, damage, flush_folder, read_manifest, write_manifest
from lisa_video.training.ema import MovingAverage
from lisa_video.training.engine import Engine, convert_to_universal

_NAME = re.compile(r"^step-(\d{8})$")
_AVERAGE = "average.pt"
_logger = logging.getLogger(__name__)


@final
class Checkpoints:
    """The checkpoint folder of a run; every rank must make the same calls.

    Args:
        folder: `run_dir/checkpoints`.
        settings: which ones stay, and whether they are written in the background.
        engine: weights and optimizer.
        average: moving average.

    Raises:
        UserError: the disk has no room for one.
    """

    def __init__(self, folder: Path, settings: TrainingConfig, engine: Engine, average: MovingAverage) -> None:
        self.folder, self.settings, self.engine, self.average = folder, settings, engine, average
        self._writing: tuple[Writing, Path, dict[str, Any]] | None = None
        self._check_space()

    def save(self, step: int, facts: dict[str, Any]) -> None:
        """Begin to write a checkpoint, after the one before is complete; `poll` or `finish` completes it.

        Args:
            step: optimizer steps done.
            facts: small values; returned by `load`.

        Raises:
            UserError: no room for it.
        """
        self.finish()
        self._check_space()
        draft = self.folder / f"step-{step:08d}.tmp"
        if distributed.is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            for half_written in self.folder.glob("*.tmp"):
                shutil.rmtree(half_written)
        distributed.barrier()
        writing = Writing(background=self.settings.async_checkpoints)
        self.engine.save(self.folder, draft.name, {"step": step, **facts}, writing.add)
        writing.add(_random_state(), draft / f"rank-{distributed.rank():05d}.pt")
        average = {"steps": self.average.steps, "whole": self.average.whole()}
        if distributed.is_main():
            writing.add(average, draft / _AVERAGE)
        writing.start()
        self._writing = (writing, draft, {"step": step, "ranks": distributed.world_size()})
        self.poll()

    def poll(self) -> None:
        """Complete the checkpoint that is being written, if all ranks are done; call it after each step.

        Raises:
            UserError: the disk is full.
        """
        if self._writing is not None and not distributed.any_rank(self._writing[0].going_on):
            self.finish()

    def finish(self) -> None:
        """Wait for the checkpoint that is being written, and give it its name.

        Raises:
            UserError: the disk is full.
        """
        if self._writing is None:
            return
        (writing, draft, facts), self._writing = self._writing, None
        writing.wait()
        fault = None if writing.error is None else (writing.disk_full, f"{writing.error!r}")
        parts = distributed.gather((writing.files, fault))
        for rank, (_, found) in enumerate(parts):
            if found is not None and found[0]:
                raise UserError("the disk is full", where=self.folder, remedy="free space; the same command goes on")
            if found is not None:
                raise RuntimeError(f"rank {rank} could not write {draft}: {found[1]}") from writing.error
        if distributed.is_main():
            write_manifest(draft, {name: entry for files, _ in parts for name, entry in files.items()}, facts)
            final = draft.with_suffix("")
            shutil.rmtree(final, ignore_errors=True)
            os.replace(draft, final)
            flush_folder(self.folder)
            self._prune()

    def load(self) -> dict[str, Any] | None:
        """Load the newest sound checkpoint; None if there is none. One of another number of ranks is converted.

        Raises:
            UserError: there are checkpoints, but all are damaged.
        """
        newest = self._newest_sound()
        if newest is None:
            return None
        ranks, world = read_manifest(newest)["ranks"], distributed.world_size()
        if ranks == world or self.settings.zero_stage == 0:
            state = self.engine.load(self.folder, newest.name)
        else:
            with self._converted(newest, ranks) as universal:
                state = self.engine.load(self.folder, universal.name, universal=True)
        self.average.load(**torch.load(newest / _AVERAGE, map_location="cpu", mmap=True))
        _set_random_state(torch.load(newest / f"rank-{distributed.rank() % ranks:05d}.pt", weights_only=False))
        return state

    def _newest_sound(self) -> Path | None:
        names: list[str] = distributed.gather([path.name for path in self._all()])[0]
        for name in reversed(names):
            path = self.folder / name
            reasons = filter(None, distributed.gather(damage(path, distributed.rank(), distributed.world_size())))
            reason = next(reasons, None)
            if reason is None:
                return path
            if distributed.is_main():
                aside = path.with_suffix(".damaged")
                _logger.warning("checkpoint %s is damaged (%s): passed over, renamed to %s", path, reason, aside.name)
                shutil.rmtree(aside, ignore_errors=True)
                os.replace(path, aside)
        if names:
            raise UserError(
                f"all {len(names)} checkpoints are damaged",
                where=self.folder,
                remedy="restore one, or start again in another run_dir",
            )
        return None

    @contextmanager
    def _converted(self, checkpoint: Path, ranks: int) -> Iterator[Path]:
        """DeepSpeed's universal form of a checkpoint, for as long as it is read."""
        universal, fault = checkpoint.with_suffix(".universal"), None
        if distributed.is_main():
            _logger.warning(
                "%s was written by %d ranks and this run has %d: converting it", checkpoint, ranks,
                distributed.world_size(),
            )  # fmt: skip
            fault = convert_to_universal(checkpoint, universal)
        fault = distributed.gather(fault)[0]
        if fault is not None:
            raise RuntimeError(f"DeepSpeed could not convert {checkpoint}: {fault}")
        yield universal
        distributed.barrier()
        if distributed.is_main():
            shutil.rmtree(universal)

    def _prune(self) -> None:
        """Remove what is neither among the newest nor to be kept for good."""
        every = self.settings.keep_every
        for old in self._all()[: -self.settings.keep_checkpoints]:
            if every == 0 or int(old.name.removeprefix("step-")) % every:
                gone = old.with_suffix(".tmp")  # never half of one under a final name
                os.replace(old, gone)
                shutil.rmtree(gone)

    def _check_space(self) -> None:
        needed = self.engine.checkpoint_bytes
        existing = next(path for path in [self.folder.absolute(), *self.folder.absolute().parents] if path.exists())
        free = distributed.gather(shutil.disk_usage(existing).free)[0]
        if free < needed:
            raise UserError(
                f"{free / 2**20:,.0f} MiB free on the disk, a checkpoint takes {needed / 2**20:,.0f} MiB",
                where=self.folder,
                remedy="free space; the same command goes on from the newest checkpoint",
            )

    def _all(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.match(path.name))


def _random_state() -> dict[str, Any]:
    """The generators of this process. What training draws is keyed by the clip and does not need them."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
