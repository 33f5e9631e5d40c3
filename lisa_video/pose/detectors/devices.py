"""Where a detector computes: what was asked for, or an error; never the CPU in the place of a GPU."""

from __future__ import annotations

import torch

from lisa_video.errors import UserError


def require_device(device: str) -> torch.device:
    """The torch device of a setting, if it can be used here.

    Args:
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        UserError: not such a name, or a GPU that this process does not see.
    """
    try:
        wanted = torch.device(device)
    except RuntimeError:
        wanted = None
    if wanted is None or wanted.type not in ("cpu", "cuda"):
        raise UserError(f"unknown device {device!r}", where="device", remedy="name cpu, cuda or cuda:N")
    if wanted.type == "cuda":
        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (wanted.index or 0) >= seen:
            raise UserError(
                f"the detector was asked to run on {device!r}, but {seen} CUDA devices can be used here",
                where="device",
                remedy="set `device: cpu`, or run where torch sees the GPU (driver, CUDA_VISIBLE_DEVICES)",
            )
    return wanted
