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


def own_gpu(number: int) -> dict[str, str]:
    """Environment that gives the process of this number one of the visible GPUs, in turn; empty if there is but one."""
    import torch  # not in workers that only render or decode

    gpus = torch.cuda.device_count()
    if gpus < 2:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[number % gpus]}
