"""Rank, world size and the few collectives that the rest needs; works with and without a process group."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist


def prepare_environment(*, compiles: bool = False) -> None:
    """Settings that DeepSpeed reads when it is imported; call it before that. What the user has set stays.

    Args:
        compiles: whether the run uses torch.compile.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if not compiles:
        # DeepSpeed decorates an optimizer that we do not use with torch.compile, which would import the whole
        # compiler at each start, for seconds.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")


def rank() -> int:
    """This process's number among all, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is rank 0, the one that writes and speaks."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


def local_device() -> torch.device:
    """The GPU of this process, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any rank; one number is reduced, cheap enough for every step."""
    if world_size() == 1:
        return flag
    count = torch.tensor(float(flag), device=local_device())
    dist.all_reduce(count)
    return bool(count.item() > 0)


def add_up(tensor: torch.Tensor) -> None:
    """Replace a tensor on this process's device by its sum over all ranks."""
    if world_size() > 1:
        dist.all_reduce(tensor)


def gather(value: Any) -> list[Any]:
    """The values of all ranks, in order of rank, on every rank. For small picklable objects."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
