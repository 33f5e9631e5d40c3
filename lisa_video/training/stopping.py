"""Stopping on request: SIGTERM and SIGUSR1, which schedulers send before they take a machine away."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, final

from lisa_video import distributed

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class RunStoppedError(Exception):
    """The run was asked to stop, and has saved a checkpoint."""


@final
class StopRequest:
    """While entered, the signals only leave a note; the trainer reads it between two steps.

    A signal reaches one rank or all of them, and no rank may stop alone: `anywhere` asks all.
    """

    def __init__(self) -> None:
        self._received = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def anywhere(self) -> bool:
        """Whether any rank has received a signal; every rank must call it."""
        return distributed.any_rank(self._received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = True
