"""Entry point of training: `deepspeed --module lisa_video.train CONFIG`, or `python -m lisa_video.train CONFIG`.

`lisa-video train` starts this under the launcher. Exit status: 0 done, 2 a mistake of the user's (one message, no
traceback), 71 out of memory, 74 a rank stood still, 75 asked to stop by SIGTERM or SIGUSR1 (a checkpoint is saved, the
same command goes on), anything else a fault.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from lisa_video.errors import UserError

_HEAD_START = 5.0  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Train one run; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m lisa_video.train",
        description="Train a side branch. Batch of a step = micro_batch_size x gradient_accumulation x processes.",
        epilog="example: deepspeed --num_gpus 8 --module lisa_video.train configs/svd_pose_lisa.yaml optimizer.lr=2e-5",
    )
    parser.add_argument("config", help="YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", help="section.key=value, for example lisa=null for the baseline")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config, check it, do not train")
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)  # given by the launcher
    parsed = parser.parse_intermixed_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        return _train(parsed.config, parsed.overrides, parsed.dry_run)
    except UserError as error:
        if os.environ.get("RANK", "0") != "0":
            # Rank 0 has most likely found the same and says it; the launcher then ends this process while it waits.
            time.sleep(_HEAD_START)
        print(f"error: {error}", file=sys.stderr)
        return 2


def _train(config_path: str, overrides: list[str], dry_run: bool) -> int:
    from lisa_video.checks import check_run, describe_run  # imports torch: not for --help
    from lisa_video.config.load import load_config
    from lisa_video.distributed import barrier, is_main, prepare_environment, rank, world_size

    config = load_config(config_path, overrides)
    if dry_run:
        print(describe_run(config))
        return 0
    check_run(config)
    warnings.filterwarnings("ignore", category=FutureWarning, module="deepspeed|torch")
    prepare_environment(compiles=config.training.compile)
    from lisa_video.training.engine import start_process_group  # imports deepspeed: seconds
    from lisa_video.training.exits import EXIT_OUT_OF_MEMORY, EXIT_STOPPED, is_out_of_memory, memory_advice
    from lisa_video.training.stopping import RunStoppedError
    from lisa_video.training.trainer import Trainer
    from lisa_video.training.watchdog import have_told

    start_process_group()
    try:
        Trainer(config).run()
    except RunStoppedError as stopped:
        if is_main():
            print(f"{stopped}; the same command goes on from there", file=sys.stderr)
        barrier()  # the launcher ends the others as soon as one has ended
        return EXIT_STOPPED
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        traceback.print_exc()
        print(f"out of memory on rank {rank()}; the plan of the run's memory follows", file=sys.stderr, flush=True)
        print(memory_advice(config, world_size()), file=sys.stderr, flush=True)
        have_told(Path(config.run_dir))
        return EXIT_OUT_OF_MEMORY
    return 0


if __name__ == "__main__":
    sys.exit(main())
