"""SIGKILL at random moments: does every killed and resumed run end with the weights of one that was not?

    python benchmarks/kill_resume.py --kills 50 --ranks 2

One tiny run is trained to its end, timed. With several ranks they die one after the other, in any order, within a
tenth of a step's time. Then, `--kills` times, the same run is started in a fresh folder, killed with SIGKILL a random
part of a step's time after a random step, and started again until it ends. The exported weights, the whole newest
checkpoint (weights, masters, moments, average, random generators) and the metrics (but for seconds) must have the
bits of the first run. A checkpoint is written after each step, so kills fall into training, writing, renaming and
pruning alike. Processes are forked from one that has imported everything, or imports would take most of the time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils._pytree import tree_leaves

from data_tools.demo.generate import generate_demo_data
from lisa_video.config.load import load_config
from lisa_video.distributed import prepare_environment
from lisa_video.models.svd.tiny import random_checkpoint

prepare_environment()

from lisa_video.training.engine import start_process_group  # noqa: E402
from lisa_video.training.metrics import read_metrics  # noqa: E402
from lisa_video.training.trainer import Trainer  # noqa: E402

STEPS = 4


def write_config(folder: Path, stage: int) -> Path:
    """A tiny network, data set and config."""
    random_checkpoint(folder / "svd", widths=(32, 32, 32, 32), vae_widths=(32, 32, 32))
    manifest = generate_demo_data(
        folder / "demo", clips=8, size=32, num_frames=8, val_fraction=0.25, workers=1, progress=False
    )
    settings = {
        "run_dir": "unset",
        "data": {"manifest": str(manifest), "num_frames": 4, "size": [32, 32], "num_workers": 0},
        "backbone": {"path": str(folder / "svd")},
        "branch": {"pose_channels": [4, 8, 16], "pose_last_init": "default"},
        "optimizer": {"lr": 1e-3},
        "training": {
            "max_steps": STEPS,
            "precision": "fp32",
            "zero_stage": stage,
            "gradient_checkpointing": False,
            "log_every": 1,
            "checkpoint_every": 1,
        },
        "preview": {"every": 0},
        "diagnostics": {"held_out_every": 0},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def start(config: Path, run_dir: Path, ranks: int) -> list[int]:
    """Fork processes that train; returns their ids."""
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        port = any_port.getsockname()[1]
    where = {"WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [_fork(config, run_dir, {**where, "RANK": rank, "LOCAL_RANK": rank}) for rank in range(ranks)]


def _fork(config: Path, run_dir: Path, environment: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    os.environ.update({name: str(value) for name, value in environment.items()})
    status = 1
    try:
        with open(run_dir.with_suffix(".log"), "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        start_process_group()
        Trainer(load_config(config, [f"run_dir={run_dir}"])).run()
        status = 0
    finally:
        os._exit(status)


def finish(config: Path, run_dir: Path, ranks: int) -> None:
    """Train to the end."""
    if any([os.waitpid(child, 0)[1] for child in start(config, run_dir, ranks)]):
        sys.exit(f"the run {run_dir} failed, see {run_dir.with_suffix('.log')}")


def outcome(run_dir: Path) -> dict[str, Any]:
    """Digests of the exported weights and of all that the newest checkpoint holds, and the metrics."""
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in read_metrics(run_dir)]
    weights = run_dir / "weights/side_branch/diffusion_pytorch_model.safetensors"
    digest = hashlib.sha256()
    for path in sorted(max((run_dir / "checkpoints").glob("step-*")).glob("*.pt")):
        state = torch.load(path, weights_only=False)
        for name in ("seconds", "config", "ds_config"):
            state.pop(name, None)
        for leaf in tree_leaves(state):
            digest.update(leaf.numpy().tobytes() if isinstance(leaf, torch.Tensor) else b"")
    return {
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "checkpoint": digest.hexdigest(),
        "metrics": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stage", type=int, default=1, help="ZeRO stage")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="JSON file of the counts")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    moments = random.Random(arguments.seed)
    same, steps_at_kill, ended_before = 0, [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_config(folder, arguments.stage)
        began = time.monotonic()
        finish(config, folder / "whole", arguments.ranks)
        duration, expected = time.monotonic() - began, outcome(folder / "whole")
        print(f"uninterrupted: {duration:.1f} s", flush=True)
        for number in range(arguments.kills):
            run_dir = folder / f"killed-{number:03d}"
            children, last = start(config, run_dir, arguments.ranks), moments.randrange(STEPS)
            while len(read_metrics(run_dir)) < last:
                time.sleep(0.005)
            time.sleep(moments.uniform(0, duration / STEPS))
            moments.shuffle(children)
            for child in children:
                os.kill(child, signal.SIGKILL)
                time.sleep(moments.uniform(0, 0.1 * duration / STEPS))
            ended_before += not any([os.WIFSIGNALED(os.waitpid(child, 0)[1]) for child in children])
            steps_at_kill.append(max([row["step"] for row in read_metrics(run_dir)], default=0))
            finish(config, run_dir, arguments.ranks)
            equal = outcome(run_dir) == expected
            same += equal
            left = sorted(path.name for path in run_dir.rglob("*.tmp"))
            print(
                f"{number + 1}: killed after step {steps_at_kill[-1]}, {'same' if equal else 'OTHER'} {left}",
                flush=True,
            )
    result = {
        "kills": arguments.kills, "same": same, "ended_before_the_kill": ended_before, "stage": arguments.stage,
        "ranks": arguments.ranks,
    }  # fmt: skip
    print(json.dumps(result | {"steps_at_kill": steps_at_kill}), flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result | {"steps_at_kill": steps_at_kill}) + "\n", encoding="utf-8")
    sys.exit(0 if same == arguments.kills else 1)


if __name__ == "__main__":
    main()
