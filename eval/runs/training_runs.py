"""Training runs of an experiment, several side by side on one machine: a process and a log each."""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tqdm import tqdm

from lisa_video.config.load import load_config
from lisa_video.config.schema import RunConfig
from lisa_video.errors import UserError
from lisa_video.launch import launcher_command, passed_on_to_ranks, training_environment
from lisa_video.processes import own_gpu
from lisa_video.training.exits import EXIT_STOPPED
from lisa_video.training.metrics import read_metrics
from lisa_video.training.run_dir import check_unchanged

_LOOK_EVERY = 0.5  # seconds
# What puts a process into a group of ranks. If this process is in one, the runs must not meet there.
_OF_ONE_GROUP = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # of prctl(2)
_MISTAKE = 2  # exit status of a run whose settings or data the user has to mend


@dataclass(frozen=True)
class TrainingRun:
    """A run to be trained.

    Attributes:
        config: YAML file.
        overrides: `a.b=c` settings.
    """

    config: Path
    overrides: tuple[str, ...]

    @cached_property
    def resolved(self) -> RunConfig:
        """All settings.

        Raises:
            UserError: the config cannot be read.
        """
        return load_config(self.config, self.overrides)

    @property
    def folder(self) -> Path:
        """The run's `run_dir`."""
        return Path(self.resolved.run_dir)

    @property
    def log(self) -> Path:
        """What its processes print."""
        return self.folder / "training.log"

    def is_finished(self) -> bool:
        """Whether it is done, with exactly these settings, so that nothing has to be started to find out."""
        run, saved, done = self.resolved, self.folder / "config.yaml", self.folder / "done.json"
        if not (saved.is_file() and done.is_file()) or load_config(saved) != run:
            return False
        step: int = json.loads(done.read_text(encoding="utf-8"))["step"]
        return step == run.training.max_steps


def train_runs(runs: Sequence[TrainingRun], *, at_once: int = 1, num_processes: int = 1) -> None:
    """Train the runs that are not finished; one that fails does not stop the others.

    Args:
        runs: of different folders.
        at_once: side by side. Several GPUs are given out in turn; on one GPU they share it.
        num_processes: ranks of each run; 1 takes no launcher, and starts seconds sooner.

    Raises:
        UserError: a run was started with other settings before, or ended by a mistake that the user can mend.
        SystemExit: another failure, told on stderr, with the status of the run; 75 if a signal asked to stop.
    """
    open_runs = [run for run in runs if not run.is_finished()]
    for run in open_runs:
        check_unchanged(run.folder, run.resolved)  # before hours of training
    failed = _Starter(at_once, num_processes).train(open_runs)
    if not failed:
        return
    told = "; ".join(f"{run.folder} ended with {_named(status)} ({_last_line(run.log)})" for run, status in failed)
    if all(status == _MISTAKE for _, status in failed):
        raise UserError(f"{len(failed)} of {len(runs)} runs failed: {told}", remedy="mend this; finished runs are kept")
    print(f"error: {len(failed)} of {len(runs)} runs are not done: {told}; see their logs", file=sys.stderr)
    mild = (EXIT_STOPPED, _MISTAKE)  # a fault weighs more than a mistake, and that more than a request to stop
    worst = max((status for _, status in failed), key=lambda status: mild.index(status) if status in mild else 2)
    raise SystemExit(worst if worst > 0 else 128 - worst)


class _Starter:
    """Keeps so many runs going at once."""

    def __init__(self, at_once: int, num_processes: int) -> None:
        self._num_processes = num_processes
        self._free = list(range(at_once))[::-1]  # slots: each has its GPU
        self._going: dict[TrainingRun, tuple[int, subprocess.Popen[bytes]]] = {}
        self._stopping = False

    def train(self, runs: Sequence[TrainingRun]) -> list[tuple[TrainingRun, int]]:
        """Train all; returns those that failed, or that were not begun since a signal asked to stop."""
        waiting = list(runs)
        failed: list[tuple[TrainingRun, int]] = []
        total = sum(run.resolved.training.max_steps for run in runs)
        with passed_on_to_ranks(self._asked_to_stop), tqdm(total=total, desc="train", unit="step") as bar:
            try:
                while waiting or self._going:
                    while waiting and self._free and not self._stopping:
                        self._start(waiting.pop(0))
                    if self._stopping and not self._going:
                        return failed + [(run, EXIT_STOPPED) for run in waiting]
                    time.sleep(_LOOK_EVERY)
                    failed += [ended for ended in self._ended() if ended[1] != 0]
                    bar.update(sum(map(_steps_done, runs)) - bar.n)
            finally:  # Ctrl-C, or a fault here
                for _, process in self._going.values():
                    process.terminate()
                for _, process in self._going.values():
                    process.wait()
        return failed

    def _start(self, run: TrainingRun) -> None:
        slot = self._free.pop()
        run.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "lisa_video.train", str(run.config), *run.overrides]
        if self._num_processes > 1:
            command = launcher_command(run.config, run.overrides, self._num_processes)
        with open(run.log, "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(slot),
                preexec_fn=_stop_with_parent if sys.platform == "linux" else None,
            )
        self._going[run] = slot, process

    def _ended(self) -> list[tuple[TrainingRun, int]]:
        ended = []
        for run, (slot, process) in list(self._going.items()):
            if (status := process.poll()) is not None:
                del self._going[run]
                self._free.append(slot)
                ended.append((run, EXIT_STOPPED if self._stopping and status < 0 else status))
        return ended

    def _environment(self, slot: int) -> dict[str, str]:
        """One thread each, since they fill the cores; and on a machine with several GPUs one of them."""
        environment = training_environment()
        for name in _OF_ONE_GROUP:
            environment.pop(name, None)
        environment.setdefault("OMP_NUM_THREADS", "1")
        if self._num_processes == 1:
            environment |= own_gpu(slot)
        return environment

    def _asked_to_stop(self) -> list[int]:
        self._stopping = True
        return [process.pid for _, process in self._going.values()]


def _stop_with_parent() -> None:
    """In the new process: be asked to stop when this one is killed, so that a second start finds no run in its way."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _steps_done(run: TrainingRun) -> int:
    rows = read_metrics(run.folder)
    return min(int(rows[-1]["step"]), run.resolved.training.max_steps) if rows else 0


def _named(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    return next((line.strip()[-200:] for line in reversed(lines) if line.strip()), "nothing printed")
