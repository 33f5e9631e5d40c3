"""Clips a second of real training with one process and with two: how much of the second core arrives.

Both runs train the same tiny network on demo data under the `deepspeed` launcher; rates are those that the runs log in
`speed.jsonl`, medians over log lines after the first. Needs two free cores to mean anything.

    python benchmarks/throughput.py runs/throughput
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path

import yaml

from data_tools.demo.generate import generate_demo_data
from lisa_video.launch import launch_training
from lisa_video.training.metrics import SPEED_FILE, read_rows

RESULTS = Path(__file__).parent / "results"
_BASE = Path(__file__).parent.parent / "lisa_video/assets/tiny_svd"


def rate(folder: Path, manifest: Path, processes: int, steps: int) -> float:
    """Clips a second of a run with so many processes, two clips each a step."""
    run_dir = folder / f"processes-{processes}"
    config = {
        "run_dir": str(run_dir),
        "data": {"manifest": str(manifest), "num_frames": 8, "frame_stride": 2, "size": [64, 64], "num_workers": 0},
        "backbone": {"path": str(_BASE), "options": {"variant": "fp16", "norm_groups": 8}},
        "branch": {"pose_channels": [16, 32, 64, 64]},
        "training": {
            "max_steps": steps,
            "micro_batch_size": 2,
            "precision": "fp32",
            "gradient_checkpointing": False,
            "log_every": 5,
            "checkpoint_every": 10 * steps,
        },
        "preview": {"every": 0},
    }
    file = folder / f"processes-{processes}.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    if launch_training(file, [], processes) != 0:
        raise SystemExit(f"the run with {processes} processes failed")
    rows = read_rows(run_dir / SPEED_FILE)
    return statistics.median(row["clips_per_second"] for row in rows[1:])


def main() -> None:
    """Train twice, print, write `results/throughput_cpu.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new folder for data and runs")
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    manifest = generate_demo_data(arguments.folder / "data", clips=20, workers=1)
    rates = {n: rate(arguments.folder, manifest, n, arguments.steps) for n in (1, 2)}
    result = {
        "clips_per_second": {str(n): round(value, 3) for n, value in rates.items()},
        "of_linear": round(rates[2] / (2 * rates[1]), 3),
        "cores": os.cpu_count(),
        "load_average_at_the_end": [round(value, 2) for value in os.getloadavg()],
        "steps": arguments.steps,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "throughput_cpu.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
