"""The moving average of the trainable parts, in float32 on every rank."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import nn


@final
class MovingAverage:
    """Exponential moving average with a warm-up: decay at step k is min(decay, (1 + k) / (10 + k)).

    Args:
        module: its parameters' current values are the start (the branch's own, never another network's).
        decay: limit of the decay.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.values = {name: p.detach().float().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards the module's parameters, after an optimizer step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        own = [p.detach().float() for _, p in module.named_parameters()]
        torch._foreach_lerp_([self.values[name] for name, _ in module.named_parameters()], own, 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the module's parameters with the average."""
        for name, p in module.named_parameters():
            p.copy_(self.values[name])

    @contextmanager
    def swapped_into(self, module: nn.Module) -> Iterator[None]:
        """Put the average into the module for a while (sampling, export), then the module's own values back."""
        own = {name: p.detach().clone() for name, p in module.named_parameters()}
        try:
            self.copy_to(module)
            yield
        finally:
            with torch.no_grad():
                for name, p in module.named_parameters():
                    p.copy_(own[name])

    def state_dict(self) -> dict[str, Any]:
        """Average and step count."""
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        if state["values"].keys() != self.values.keys():
            raise RuntimeError(f"an average of other parameters: {sorted(state['values'].keys() ^ self.values.keys())}")
        self.steps = state["steps"]
        for name, value in state["values"].items():
            self.values[name].copy_(value)
