"""`Engine`: runs one function over many tasks in worker processes that may hang or die."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")

MAX_TRIES = 3
"""How often a task whose worker died is begun: somebody else may have killed it, or taken the memory."""


@dataclass(frozen=True)
class Lost:
    """What is left of a task that gave no result.

    Attributes:
        reason: its time was up, or its worker died `MAX_TRIES` times.
        exit_code: of the worker that died last; negative: the number of the signal.
    """

    reason: Literal["timeout", "died"]
    exit_code: int = 0


class Engine(ABC):
    """A context: workers start when the first task needs them, and end with it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def run(
        self, work: Callable[[T], R], tasks: Sequence[T], time_limit: Callable[[T], float], *, on_gpu: bool = False
    ) -> Iterator[tuple[T, R | Lost]]:
        """Yield each task with its result, as they are ready; only a few are under way at any time.

        A caller that stops early stops the workers.

        Args:
            work: importable function, or `functools.partial` of one; runs in a worker.
            tasks: small, picklable.
            time_limit: seconds that a task may take; its worker is killed then.
            on_gpu: each worker gets one GPU to itself.

        Raises:
            UserError: workers cannot be started.
            Exception: whatever `work` raised; the tasks under way are given up.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers."""
