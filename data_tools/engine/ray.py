"""`RayEngine`: the same work on a Ray cluster through Ray Data.

Each Ray worker keeps one child process, a `LocalEngine` of its own, so that time limits, memory limits and crashes
are handled by the same code as on one machine.
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from data_tools.engine.base import Engine, Lost, R, T
from data_tools.engine.local import LocalEngine, usable_cores
from lisa_video.errors import UserError

_MAX_BLOCKS = 2000  # pieces of work that Ray schedules; results arrive a piece at a time
_OBJECT_STORE_BYTES = 256 * 2**20  # of a local Ray; tasks and results are small

_kept: tuple[str | None, LocalEngine] | None = None  # in a Ray worker: its GPUs, and its child process


class RayEngine(Engine):
    """Ray Data tasks; the output folder and the videos must be at the same paths on all machines.

    Args:
        workers: tasks at a time; None: one a CPU of the cluster, or one a GPU for tasks on GPUs.
        memory_mib: address space of a worker, MiB; None: no limit.
        address: of the cluster; None: a Ray on this machine, which ends with the engine.

    Raises:
        UserError: Ray is not installed.
    """

    def __init__(self, workers: int | None = None, memory_mib: int | None = None, address: str | None = None) -> None:
        # Read by Ray as it is imported: no report of usage to its makers, no messages of its own.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise UserError(
                "Ray is not installed", where="engine.kind", remedy="pip install 'lisa-video[ray]', or --engine local"
            ) from error
        self._ray: Any = ray
        self._workers, self._memory_mib, self._address = workers, memory_mib, address
        self._folder: str | None = None

    def run(
        self, work: Callable[[T], R], tasks: Sequence[T], time_limit: Callable[[T], float], *, on_gpu: bool = False
    ) -> Iterator[tuple[T, R | Lost]]:
        """See `Engine`."""
        if not tasks:
            return
        self._start()
        resource = "GPU" if on_gpu else "CPU"
        workers = self._workers or max(1, int(self._ray.cluster_resources().get(resource, 1)))
        rows = [{"number": number, "task": pickle.dumps(task)} for number, task in enumerate(tasks)]
        # Tasks, not actors: Ray keeps the worker processes of tasks, and with them their children, for the next step.
        answers = self._ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS)).map_batches(
            _answer,
            batch_size=1,
            num_cpus=1,
            num_gpus=1 if on_gpu else 0,
            concurrency=min(workers, len(tasks)),
            fn_args=(work, time_limit, self._memory_mib),
        )
        for row in answers.iter_rows():
            answer = pickle.loads(row["answer"])
            if isinstance(answer, _Raised):
                raise answer.error
            yield tasks[row["number"]], answer

    def close(self) -> None:
        """See `Engine`."""
        if self._folder is not None:
            self._ray.shutdown()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _start(self) -> None:
        if self._folder is not None:
            return
        self._folder = tempfile.mkdtemp(prefix="lisa-ray-")
        if self._address is not None:
            try:
                _knock(self._address)
                self._ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
            except OSError as error:
                raise UserError(
                    f"no Ray cluster there ({error})",
                    where="engine.address",
                    remedy="start one with `ray start --head`, name its address, or leave it null for a local Ray",
                ) from error
        else:
            self._ray.init(
                address="local",
                num_cpus=self._workers or usable_cores(),
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1",
                _temp_dir=self._folder,
            )
        context = self._ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_no_progress_timeout_s = 10**9  # a single video may take long; its own limit holds
        logging.getLogger("ray.data").setLevel(logging.ERROR)


def _knock(address: str) -> None:
    """Ray itself tries for minutes to reach a cluster that is not there.

    Raises:
        OSError: nobody answers.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


class _Raised:
    """An exception on its way to the main process."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _answer(
    batch: dict[str, np.ndarray],
    work: Callable[[Any], Any],
    time_limit: Callable[[Any], float],
    memory_mib: int | None,
) -> dict[str, Any]:
    """A Ray task: hands its tasks one after the other to the child process."""
    engine = _child(memory_mib)
    answers: list[bytes] = []
    answer: Any
    for task in batch["task"]:
        try:
            ((_, answer),) = engine.run(work, [pickle.loads(task)], time_limit)
        except Exception as error:
            if error.__cause__ is not None:  # where in the child it was raised, which a pickle leaves behind
                error.add_note(str(error.__cause__))
            answer = _Raised(error)
        answers.append(pickle.dumps(answer))
    return {"number": batch["number"], "answer": np.array(answers, dtype=object)}


def _child(memory_mib: int | None) -> LocalEngine:
    """The child process of this Ray worker: it outlives the task, but not a change of the GPU."""
    global _kept
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
    if _kept is None or _kept[0] != gpus:
        if _kept is not None:
            _kept[1].close()
        _kept = (gpus, LocalEngine(1, memory_mib))
    return _kept[1]
