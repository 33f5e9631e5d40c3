"""Worker processes: none outlives the process that started it."""

from __future__ import annotations

import os
import threading
from multiprocessing import parent_process


def end_with_parent() -> None:
    """Call in a worker as it starts: it ends as soon as its parent does, however that was killed.

    A killed parent cannot stop its workers; they would wait for tasks, and hold their GPU, for ever.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
