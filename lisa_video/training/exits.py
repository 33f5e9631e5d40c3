"""Exit statuses of a training run, in one place, and what is said when memory runs out."""

from __future__ import annotations

import torch

from lisa_video.config.schema import RunConfig
from lisa_video.errors import UserError

EXIT_USER_ERROR = 2
EXIT_OUT_OF_MEMORY = 71
"""Memory ran out, of a GPU or of the machine (EX_OSERR)."""
EXIT_STUCK = 74
"""A rank made no progress for `training.watchdog_seconds` (EX_IOERR)."""
EXIT_STOPPED = 75
"""The run was asked to stop: a checkpoint is saved, the same command goes on (EX_TEMPFAIL)."""

# What allocators say that raise a plain RuntimeError: the CPU's, cuBLAS and NCCL.
_MEMORY_WORDS = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA out of memory", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY_WORDS)


def exit_status(error: BaseException) -> int:
    """Exit status for an exception that ends a run."""
    if isinstance(error, UserError):
        return EXIT_USER_ERROR
    return EXIT_OUT_OF_MEMORY if is_out_of_memory(error) else 1


def memory_advice(config: RunConfig, ranks: int) -> str:
    """The plan of the run's memory, and the three settings that help most."""
    try:
        from lisa_video.planning.plan import plan_run, remedies  # traces a step without weights: seconds

        plan = plan_run(config, ranks)
        best = remedies(plan)[:3]
    except Exception as failure:  # advice must not hide what it is about
        return f"no memory plan could be made ({failure}); see `lisa-video plan CONFIG --gpus N --gpu-memory G`"
    settings = [f"  {saved / 1e9:.2f} GB less with {setting}" for setting, saved in best]
    return "\n".join([plan.as_text(), "", "what helps most, each alone:", *settings])
