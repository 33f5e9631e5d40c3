"""From settings to the optimizer."""

from __future__ import annotations

from typing import Any

import torch

from lisa_video.config.schema import OptimizerConfig
from lisa_video.training.muon import Muon


def build_optimizer(
    groups: list[dict[str, Any]], settings: OptimizerConfig, *, fused: bool | None = None, capturable: bool = False
) -> torch.optim.Optimizer:
    """The optimizer that the settings ask for.

    Args:
        groups: parameters, by rate.
        settings: of the run.
        fused: AdamW: as one kernel; None: as torch sees fit.
        capturable: AdamW: its step may be captured as a CUDA graph. Muon's may be.
    """
    common: dict[str, Any] = settings.model_dump(include={"lr", "betas", "eps", "weight_decay"})
    if settings.kind == "muon":
        return Muon(groups, momentum=settings.momentum, **common)
    return torch.optim.AdamW(groups, fused=fused, capturable=capturable, **common)
