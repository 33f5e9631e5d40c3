"""Trains several runs, one after the other, in one process group: `many_runs.py CONFIG FOLDER RUN...`.

A run is "name override override ..."; its run_dir is FOLDER/name.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from lisa_video.config.load import load_config
from lisa_video.distributed import prepare_environment

warnings.filterwarnings("ignore", category=FutureWarning, module="deepspeed|torch")
prepare_environment()

if __name__ == "__main__":
    from lisa_video.training.engine import start_process_group
    from lisa_video.training.trainer import Trainer

    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--local_rank", type=int, default=0)  # given by the launcher
    arguments = parser.parse_args()
    start_process_group()
    for run in arguments.runs:
        name, *overrides = run.split()
        Trainer(load_config(arguments.config, [f"run_dir={arguments.folder / name}", *overrides])).run()
