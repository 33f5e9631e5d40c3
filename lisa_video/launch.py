"""Starting training under the `deepspeed` launcher, as `lisa-video train` and the quickstart do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lisa_video.config.load import load_config


def launch_training(config: Path, overrides: Sequence[str], num_processes: int, *, dry_run: bool = False) -> int:
    """Run `lisa_video.train` on `num_processes` ranks and wait; returns the exit status.

    Args:
        config: YAML file.
        overrides: `a.b=c` settings.
        num_processes: one a GPU, or CPU ranks where there is no GPU.
        dry_run: only print and check; starts no launcher.

    Raises:
        UserError: the config cannot be read (told here already, once, not by every rank).
    """
    load_config(config, overrides)
    arguments = [str(config), *overrides]
    if dry_run:
        return subprocess.run(
            [sys.executable, "-m", "lisa_video.train", *arguments, "--dry-run"], check=False
        ).returncode
    return subprocess.run(
        [
            *(sys.executable, "-m", "deepspeed.launcher.runner"),
            *("--num_gpus", str(num_processes), "--master_port", str(_free_port())),
            *("--module", "lisa_video.train"),
            *arguments,
        ],
        env=_environment(),
        check=False,
    ).returncode


def _environment() -> dict[str, str]:
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
