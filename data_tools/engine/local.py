"""`LocalEngine`: worker processes of this machine (pebble), each of which can be killed without harm to the others."""

from __future__ import annotations

import fcntl
import os
import resource
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any

from data_tools.engine.base import MAX_TRIES, Engine, Lost, R, T
from lisa_video.errors import UserError
from lisa_video.processes import end_with_parent, visible_gpus

_QUEUED_PER_WORKER = 2
_MAX_BREAKS = 3  # pools in a row that break before a single task is done

_held_slot: IO[str] | None = None  # in a worker: its lock, held for life


class LocalEngine(Engine):
    """Spawned processes.

    Args:
        workers: processes; None: one a usable core, or one a GPU for tasks on GPUs.
        memory_mib: address space of a worker, MiB; None: no limit.

    Raises:
        UserError: pebble is not installed.
    """

    def __init__(self, workers: int | None = None, memory_mib: int | None = None) -> None:
        if find_spec("pebble") is None:
            raise UserError("pebble is not installed", where="engine", remedy="pip install 'lisa-video[data]'")
        self._workers, self._memory_mib = workers, memory_mib
        self._pool: Any = None
        self._pool_shape: tuple[int, tuple[str, ...]] | None = None
        self._slots: tempfile.TemporaryDirectory[str] | None = None
        self._breaks = 0

    def run(
        self, work: Callable[[T], R], tasks: Sequence[T], time_limit: Callable[[T], float], *, on_gpu: bool = False
    ) -> Iterator[tuple[T, R | Lost]]:
        """See `Engine`."""
        from pebble import ProcessExpired

        gpus = visible_gpus() if on_gpu else ()
        workers = min(self._workers or len(gpus) or usable_cores(), max(1, len(tasks)))
        waiting = deque((task, 1) for task in tasks)
        running: dict[Future[R], tuple[T, int]] = {}
        try:
            while waiting or running:
                pool = self._ready_pool(workers, gpus)
                while waiting and len(running) < _QUEUED_PER_WORKER * workers and pool.active:
                    task, attempt = waiting.popleft()
                    running[pool.schedule(work, args=(task,), timeout=time_limit(task))] = (task, attempt)
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    task, attempt = running.pop(future)
                    try:
                        result: R | Lost = future.result()
                    except TimeoutError:
                        result = Lost("timeout")
                    except ProcessExpired as error:
                        if attempt < MAX_TRIES:
                            waiting.append((task, attempt + 1))
                            continue
                        result = Lost("died", error.exitcode)
                    except BrokenProcessPool:  # a worker died between two tasks, or while it started
                        waiting.appendleft((task, attempt))
                        continue
                    self._breaks = 0
                    yield task, result
        finally:
            if running:
                self.close()

    def close(self) -> None:
        """See `Engine`."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None
        if self._slots is not None:
            self._slots.cleanup()
            self._slots = None

    def _ready_pool(self, workers: int, gpus: tuple[str, ...]) -> Any:
        """The pool, made anew if it is broken or of another shape."""
        from pebble import ProcessPool

        if self._pool is not None and not self._pool.active:
            self._breaks += 1
            self.close()
            if self._breaks == _MAX_BREAKS:
                raise UserError(
                    "worker processes end before they do anything",
                    remedy="see the messages above; raise engine.memory_mib, or lower engine.workers",
                )
        if self._pool_shape != (workers, gpus):
            self.close()
        if self._pool is None:
            self._slots = tempfile.TemporaryDirectory(prefix="lisa-video-workers-")
            self._pool_shape = (workers, gpus)
            self._pool = ProcessPool(
                workers,
                initializer=start_worker,
                initargs=(self._slots.name, gpus, self._memory_mib),
                # Not forked: a fork copies the locks of the threads of this process (pebble's own, a progress bar's).
                context=get_context("spawn"),
            )
        return self._pool


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start_worker(slots: str, gpus: tuple[str, ...], memory_mib: int | None) -> None:
    """Set up a worker process: its memory, its GPU, and no life beyond that of the parent."""
    end_with_parent()
    if memory_mib is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_mib * 2**20,) * 2)
    if gpus:
        # Before CUDA starts; torch and ONNX Runtime both obey it.
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[_take_slot(Path(slots)) % len(gpus)]


def _take_slot(folder: Path) -> int:
    """The lowest number that no living worker holds: the system frees it when a worker dies, however it does."""
    global _held_slot
    number = 0
    while True:
        _held_slot = open(folder / str(number), "a", encoding="utf-8")
        try:
            fcntl.flock(_held_slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return number
        except BlockingIOError:
            _held_slot.close()
            number += 1
