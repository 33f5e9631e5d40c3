"""From settings to the optimizer and the groups of its parameters."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from lisa_video.config.schema import OptimizerConfig, RunConfig
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


def rate_factor(settings: OptimizerConfig, samples_seen: Tensor, samples_left: Tensor) -> Tensor:
    """Share of the learning rate at a step: it rises, stays, and falls to 0 (Hägele et al., arXiv 2405.18392).

    Args:
        settings: of the run.
        samples_seen: clips before the step.
        samples_left: clips from the step to the end of the run, its own included.

    Returns:
        In (0, 1]; 1 between warm-up and cool-down.
    """
    risen = (samples_seen + 1) / (settings.warmup_samples + 1)
    if settings.cooldown == 0:
        return risen.clamp(max=1)
    falling = samples_left / (settings.cooldown * (samples_seen + samples_left))
    return risen.clamp(max=1) * falling.clamp(max=1)


def parameter_groups(model: nn.Module, config: RunConfig) -> list[dict[str, Any]]:
    """Trainable parameters, grouped by their rate in units of the learning rate.

    The branch's copied layers have 1, its new ones `optimizer.new_layers_rate`, the decoder `lisa.decoder_rate`.
    """
    by_rate: dict[float, list[nn.Parameter]] = defaultdict(list)
    new = tuple(f"branch.{layer}." for layer in getattr(getattr(model, "branch", None), "new_layers", ()))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = config.optimizer.new_layers_rate if name.startswith(new) else 1.0
            if name.startswith("decoder.") and config.lisa is not None:
                rate = config.lisa.decoder_rate
            by_rate[rate].append(parameter)
    return [{"params": parameters, "rate": rate} for rate, parameters in by_rate.items()]
