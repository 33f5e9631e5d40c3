"""Starting training under the `deepspeed` launcher, as `lisa-video train` and the quickstart do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil

from lisa_video.config.load import load_config


def launch_training(config: Path, overrides: Sequence[str], num_processes: int, *, dry_run: bool = False) -> int:
    """Run `lisa_video.train` on `num_processes` ranks and wait; returns the exit status: 0 only if the run is done.

    Args:
        config: YAML file.
        overrides: `a.b=c` settings.
        num_processes: one a GPU, or CPU ranks where there is no GPU.
        dry_run: only print and check; starts no launcher.

    Raises:
        UserError: the config cannot be read (told here already, once, not by every rank).
    """
    done = Path(load_config(config, overrides).run_dir) / "done.json"
    arguments = [str(config), *overrides]
    if dry_run:
        return subprocess.run(
            [sys.executable, "-m", "lisa_video.train", *arguments, "--dry-run"], check=False
        ).returncode
    before = _written_at(done)
    launcher = subprocess.Popen(launcher_command(config, overrides, num_processes), env=training_environment())
    with passed_on_to_ranks(lambda: [launcher.pid]):
        status = launcher.wait()
    if status == 0 and _written_at(done) == before:
        # DeepSpeed's runner returns 0 when the launcher below it was killed by a signal.
        print(f"error: the launcher ended without an error, but the run is not done: no new {done}", file=sys.stderr)
        return 1
    return status if status >= 0 else 128 - status  # as shells say it


def _written_at(file: Path) -> int | None:
    return file.stat().st_mtime_ns if file.is_file() else None


def launcher_command(config: Path, overrides: Sequence[str], num_processes: int) -> list[str]:
    """The command that trains on `num_processes` ranks of this machine."""
    return [
        *(sys.executable, "-m", "deepspeed.launcher.runner"),
        *("--num_gpus", str(num_processes), "--master_port", str(_free_port())),
        *("--module", "lisa_video.train", str(config), *overrides),
    ]


@contextmanager
def passed_on_to_ranks(started: Callable[[], Iterable[int]]) -> Iterator[None]:
    """While entered, a request to stop goes to the ranks, past the launcher, which would end without waiting.

    Args:
        started: gives the process ids of launchers, or of ranks that were started without one.
    """

    def pass_on(number: int, frame: FrameType | None) -> None:
        for pid in started():
            with suppress(psutil.NoSuchProcess):
                _ask_to_stop(psutil.Process(pid))

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ask_to_stop(process: psutil.Process) -> None:
    for member in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            if "-m lisa_video.train" in " ".join(member.cmdline()):  # a rank: neither a launcher nor a rank's worker
                member.send_signal(signal.SIGUSR1)


def training_environment() -> dict[str, str]:
    """Without GPUs: DeepSpeed on the CPU, and one thread a rank, since ranks already fill the cores."""
    environment = dict(os.environ)
    if not os.path.exists("/dev/nvidia0"):
        environment.setdefault("DS_ACCELERATOR", "cpu")
        environment.setdefault("OMP_NUM_THREADS", "1")
    return environment


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
