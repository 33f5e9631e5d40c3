"""Jobs of an evaluation side by side: a process each, which keeps the frozen network from one job to the next."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from typing import TypeVar

import torch
from tqdm import tqdm

from eval.runs.generate import GenerationJob
from lisa_video.processes import end_with_parent, own_gpu

Result = TypeVar("Result")


def side_by_side(
    work: Callable[[GenerationJob], Result], jobs: Sequence[GenerationJob], num_processes: int, title: str
) -> list[Result]:
    """Results of the jobs, in their order.

    Args:
        work: what to do with a job; can be pickled if there are several processes.
        jobs: none waits for another.
        num_processes: 1 works in this process; more get the GPUs in turn, or one thread each on a CPU.
        title: of the progress bar.

    Raises:
        Exception: the first one of `work`; what other jobs had done is kept in their files.
    """
    if num_processes == 1 or len(jobs) < 2:
        return [work(job) for job in jobs]
    context = get_context("spawn")
    counter = context.Value("i", 0)
    with (
        tqdm(total=len(jobs), desc=title, unit="job") as bar,
        _quiet(),
        ProcessPoolExecutor(
            min(num_processes, len(jobs)), mp_context=context, initializer=_start_worker, initargs=(counter,)
        ) as pool,
    ):
        futures = [pool.submit(work, job) for job in jobs]
        try:
            for future in futures:
                future.add_done_callback(lambda _: bar.update())
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Processes that start meanwhile show no progress bars: those of several would overwrite each other."""
    before = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        del os.environ["TQDM_DISABLE"]
        if before is not None:
            os.environ["TQDM_DISABLE"] = before


def _start_worker(counter: Synchronized[int]) -> None:
    """One GPU, or one thread, since the processes fill the cores; and no life beyond that of the parent."""
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    os.environ.update(own_gpu(number))
    torch.set_num_threads(1)
    end_with_parent()
