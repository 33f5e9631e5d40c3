"""The loader that follows the order of samples: the same for any number of ranks and workers, from any point.

Everything is a function of the sample's position, so to resume is to start at another position.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lisa_video.data.batch import Clip, ClipBatch, SampleKey, collate
from lisa_video.data.order import ClipOrder
from lisa_video.errors import UserError
from lisa_video.processes import end_with_parent

T = TypeVar("T")


def shard(items: Sequence[T], rank: int, world_size: int) -> list[T]:
    """This rank's part of a finite list: every `world_size`-th item; the parts of all ranks make up the list."""
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not in a world of {world_size}")
    return list(items[rank::world_size])


class PositionSampler(Sampler[list[SampleKey]]):
    """Endless micro-batches of keys for one rank.

    The m-th micro-batch of all ranks together is the positions from start + m B W to start + (m + 1) B W - 1, of
    which rank r takes the r-th run of B. So as long as micro-batch size times ranks stays, so do the samples of
    each optimizer step. All clips of a micro-batch, over all ranks, are of one bucket.

    Args:
        num_clips: records in the split.
        micro_batch_size: B, clips a rank takes at once.
        rank: r, of this process.
        world_size: W, number of ranks.
        start_position: first position of the first micro-batch: the samples seen so far.
        seed: of the epochs' orders.
        members: record numbers of each bucket; None: all records are one bucket.

    Raises:
        UserError: with several buckets, the start would be within a micro-batch of all ranks.
    """

    def __init__(
        self,
        num_clips: int,
        micro_batch_size: int,
        rank: int,
        world_size: int,
        start_position: int,
        seed: int,
        members: Sequence[np.ndarray] | None = None,
    ) -> None:
        if num_clips < 1 or micro_batch_size < 1 or start_position < 0 or not 0 <= rank < world_size:
            raise ValueError(
                f"impossible order: {num_clips} clips, micro-batch {micro_batch_size}, rank {rank} of {world_size}, "
                f"start {start_position}"
            )
        self.micro_batch_size, self.stride = micro_batch_size, micro_batch_size * world_size
        self.order = ClipOrder([np.arange(num_clips)] if members is None else members, self.stride, seed)
        self.order.check_start(start_position)
        self.first_position = start_position + rank * micro_batch_size

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Micro-batches from the start position on, without end."""
        first = self.first_position
        while True:
            yield [self.order.key(position) for position in range(first, first + self.micro_batch_size)]
            first += self.stride


class ClipLoader:
    """Endless batches along a `PositionSampler`; each iteration starts again at the start position.

    An iteration owns its workers: they start with it, live as long as it does, and end when it is closed.

    Args:
        dataset: maps a `SampleKey` to a `Clip`.
        sampler: the keys of each batch.
        num_workers: processes that load ahead; 0 loads in this process.
        prefetch_factor: batches that each worker loads ahead.
        pin_memory: put batches into page-locked memory, for copies to a GPU that do not wait.
    """

    def __init__(
        self,
        dataset: Dataset[Clip],
        sampler: PositionSampler,
        *,
        num_workers: int = 0,
        prefetch_factor: int = 2,
        pin_memory: bool = False,
    ) -> None:
        # A forked copy of a process that runs CUDA or DeepSpeed threads may hang; workers are forked from a server
        # that has imported this package and nothing else.
        context = multiprocessing.get_context("forkserver") if num_workers else None
        if context is not None:
            context.set_forkserver_preload(["lisa_video.data.clips"])
        self._loader: DataLoader[Clip | _LoadingError] = DataLoader(
            _ErrorsAsValues(dataset),
            batch_sampler=sampler,
            num_workers=num_workers,
            prefetch_factor=prefetch_factor if num_workers else None,
            pin_memory=pin_memory,
            collate_fn=_collate_or_error,
            worker_init_fn=_start_worker,
            multiprocessing_context=context,
            generator=torch.Generator(),  # it draws a seed for workers at each start: not from the run's own state
        )

    def __iter__(self) -> Iterator[ClipBatch]:
        """Batches from the start position on, without end.

        Raises:
            UserError: the dataset found no usable clip.
        """
        for batch in self._loader:
            if isinstance(batch, _LoadingError):
                raise UserError(batch.what, where=batch.where, remedy=batch.remedy)
            yield batch


def build_loader(
    dataset: Dataset[Clip],
    *,
    num_clips: int,
    micro_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    start_position: int = 0,
    seed: int = 0,
    members: Sequence[np.ndarray] | None = None,
    num_workers: int = 0,
    prefetch_factor: int = 2,
    pin_memory: bool = False,
) -> ClipLoader:
    """Join a dataset and an order; see `PositionSampler` and `ClipLoader` for the arguments.

    Give the dataset the same `seed`, so that its replacements for broken clips follow the same order.
    """
    sampler = PositionSampler(num_clips, micro_batch_size, rank, world_size, start_position, seed, members)
    return ClipLoader(dataset, sampler, num_workers=num_workers, prefetch_factor=prefetch_factor, pin_memory=pin_memory)


class _LoadingError(NamedTuple):
    """A `UserError` on its way out of a worker."""

    what: str
    where: str | None
    remedy: str


class _ErrorsAsValues(Dataset[Clip | _LoadingError]):
    """The dataset, with user errors returned: torch would turn one raised in a worker into a RuntimeError."""

    def __init__(self, dataset: Dataset[Clip]) -> None:
        self._dataset = dataset

    def __getitem__(self, key: SampleKey) -> Clip | _LoadingError:
        try:
            return self._dataset[key]
        except UserError as error:
            where = None if error.where is None else str(error.where)
            return _LoadingError(error.what, where, error.remedy)


def _collate_or_error(items: Sequence[Clip | _LoadingError]) -> ClipBatch | _LoadingError:
    for item in items:
        if isinstance(item, _LoadingError):
            return item
    return collate([item for item in items if isinstance(item, Clip)])


def _start_worker(_: int) -> None:
    # Each worker is one of many: threads of its own would only fight with theirs.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    end_with_parent()  # a killed trainer cannot stop its workers
