"""The moving average of the trained weights: of the float32 masters, split over ranks as ZeRO splits them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import final

import torch
from torch import Tensor

from lisa_video import distributed
from lisa_video.training.engine import Engine, Fragment


@final
class MovingAverage:
    """Exponential moving average with a warm-up: decay at step k is min(decay, (1 + k) / (10 + k)).

    Each rank averages the part of the masters that its optimizer owns, where they lie (offloaded: in host memory), so
    a step costs no communication, and in bf16 nothing is lost to rounding.

    Args:
        engine: its weights' current values are the start (the branch's own, never another network's).
        decay: limit of the decay.
    """

    def __init__(self, engine: Engine, decay: float) -> None:
        self.engine, self.decay, self.steps = engine, decay, 0
        self.values = {name: Fragment(start, values.clone()) for name, (start, values) in engine.masters().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the masters, after an optimizer step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        masters = [values for _, values in self.engine.masters().values()]
        torch._foreach_lerp_([values for _, values in self.values.values()], masters, 1 - decay)

    def whole(self) -> dict[str, Tensor]:
        """The average by parameter, in float32 and full shape, in rank 0's host memory; every rank must call it."""
        keep = distributed.is_main()
        return {name: value.cpu() for name, value in self.engine.whole(self.values) if keep}

    def in_module(self) -> AbstractContextManager[None]:
        """While entered, the module has the average in place of its own weights; every rank must enter it."""
        return self.engine.holding(self.values)

    @torch.no_grad()
    def load(self, steps: int, whole: Mapping[str, Tensor]) -> None:
        """Restore what `whole` gave, on any number of ranks."""
        if whole.keys() != self.engine.parameters.keys():
            raise RuntimeError(
                f"an average of other parameters: {sorted(whole.keys() ^ self.engine.parameters.keys())}"
            )
        self.steps = steps
        for name, (start, values) in self.values.items():
            values.copy_(whole[name].flatten()[start : start + len(values)])
