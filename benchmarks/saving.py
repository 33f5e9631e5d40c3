"""What a checkpoint costs a run: written in the background, or waited for, against hardly any.

The same tiny run is trained three ways, again and again in turn; what the two with a checkpoint every few steps take
longer than the one with a single checkpoint at its end, over their number, is the cost of one. Writing in the
background needs a core of its own to mean anything.

    python benchmarks/saving.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from data_tools.demo.generate import generate_demo_data
from lisa_video.config.load import load_config
from lisa_video.distributed import prepare_environment

prepare_environment()

from lisa_video.training.engine import start_process_group  # noqa: E402
from lisa_video.training.trainer import Trainer  # noqa: E402

RESULTS = Path(__file__).parent / "results"
_CONFIG = Path("configs/quickstart.yaml")
_EVERY = 4
_WAYS = {"none": (10**6, True), "background": (_EVERY, True), "waited for": (_EVERY, False)}


def seconds(folder: Path, manifest: Path, steps: int, way: str) -> float:
    """Of a run, in a process of its own that has imported everything."""
    every, background = _WAYS[way]
    settings = {
        "run_dir": folder / "run", "data.manifest": manifest, "training.max_steps": steps,
        "training.micro_batch_size": 2, "training.checkpoint_every": every,
        "training.async_checkpoints": str(background).lower(), "preview.every": 0, "diagnostics.held_out_every": 0,
    }  # fmt: skip
    reader, writer = os.pipe()
    if child := os.fork():
        os.close(writer)
        with os.fdopen(reader) as pipe:
            text = pipe.read()
        if os.waitpid(child, 0)[1] != 0:
            raise SystemExit(f"the run with {way} failed")
        return float(text)
    status = 1
    try:
        torch.set_num_threads(1)
        start_process_group()
        trainer = Trainer(load_config(_CONFIG, [f"{key}={value}" for key, value in settings.items()]))
        started = time.perf_counter()
        trainer.run()
        os.write(writer, str(time.perf_counter() - started).encode())
        status = 0
    finally:
        os._exit(status)


def main() -> None:
    """Train, print, write `results/saving_cpu.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    taken: dict[str, list[float]] = {way: [] for way in _WAYS}
    with tempfile.TemporaryDirectory() as root:
        manifest = generate_demo_data(Path(root) / "data", clips=20, workers=1)
        for number in range(arguments.rounds):
            for way in _WAYS:
                taken[way].append(seconds(Path(root) / f"{number}-{way}", manifest, arguments.steps, way))
    middle = {way: statistics.median(values) for way, values in taken.items()}
    further, step = (arguments.steps - 1) // _EVERY, middle["none"] / arguments.steps
    result: dict[str, Any] = {
        "seconds_of_a_run": {way: [round(value, 2) for value in values] for way, values in taken.items()},
        "steps": arguments.steps,
        "further_checkpoints": further,
        "cost_of_one_in_steps": {
            way: round((middle[way] - middle["none"]) / further / step, 3) for way in _WAYS if way != "none"
        },
        "load_average_at_the_end": [round(value, 2) for value in os.getloadavg()],
    }
    (RESULTS / "saving_cpu.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
