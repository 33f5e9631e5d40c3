"""Worker processes: none outlives the process that started it, and each has a GPU of its own if there are several."""

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


def visible_gpus() -> tuple[str, ...]:
    """Names of the usable GPUs, as CUDA_VISIBLE_DEVICES wants them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(name for name in named.split(",") if name)
    import torch  # not in workers that only render or decode

    return tuple(map(str, range(torch.cuda.device_count())))


def own_gpu(number: int) -> dict[str, str]:
    """Environment that gives the process of this number one of the GPUs, in turn; empty if there is but one."""
    gpus = visible_gpus()
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if len(gpus) > 1 else {}
