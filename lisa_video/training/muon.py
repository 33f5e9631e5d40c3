"""Muon: weight matrices step along their orthogonalised momentum, everything else by AdamW.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), with the step's size matched to AdamW's
(Liu et al., arXiv 2502.16982). PyTorch's own takes two-dimensional weights only, and DeepSpeed's treats the kernel of a
temporal convolution as a batch of 1x1 matrices; a branch of a video network is mostly convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.adamw import adamw

_QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al.: steepest at 0, so that five iterations are enough
_ITERATIONS = 5
_RMS = 0.2  # Liu et al.: root mean square of AdamW's usual update, in units of the rate


@final
class Muon(torch.optim.Optimizer):
    """Steps of both kinds in one optimizer; whole weights are needed, so no stage of ZeRO may split them.

    A weight of two or more dimensions is a matrix (out, in x kernel). With gradient g, momentum m and rate lr:
    m <- mu m + (1 - mu) g;  w <- (1 - lr decay) w - lr 0.2 sqrt(max(rows, columns)) O((1 - mu) g + mu m), where O sets
    all singular values to about 1. A rate means as much as AdamW's, but a higher one is borne.

    Args:
        params: parameters or groups, in which `lr` may be given.
        lr: learning rate.
        momentum: mu.
        betas: AdamW's, for biases and norms; so is eps.
        eps: see `betas`.
        weight_decay: of both.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            due = [p for p in group["params"] if p.grad is not None]
            for p in due:
                if p.ndim >= 2:
                    self._step_matrix(p, group)
            self._step_others([p for p in due if p.ndim < 2], group)

    def _step_matrix(self, p: Tensor, group: dict[str, Any]) -> None:
        assert p.grad is not None
        state, mu = self.state[p], group["momentum"]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        momentum = state["momentum"].lerp_(p.grad, 1 - mu)
        direction = orthogonalised(p.grad.lerp(momentum, mu).flatten(1))
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.sub_(direction.view_as(p) * (group["lr"] * _RMS * math.sqrt(max(direction.shape))))

    def _step_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        for p in parameters:
            if not self.state[p]:
                first = {"step": torch.zeros((), device=p.device)}
                self.state[p].update(first, mean=torch.zeros_like(p), square=torch.zeros_like(p))
        states = [self.state[p] for p in parameters]
        adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [state["mean"] for state in states],
            [state["square"] for state in states],
            [],
            [state["step"] for state in states],
            capturable=parameters[0].is_cuda,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonalised(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The matrix with all singular values near 1 (0.7 to 1.2), by Newton-Schulz iterations; 0 stays 0.

    In bfloat16 on a GPU, which is precise enough for it (Jordan et al.) and several times as fast.
    """
    a, b, c = _QUINTIC
    x = matrix.bfloat16() if matrix.is_cuda else matrix.float()
    wide = x if len(matrix) <= matrix.shape[1] else x.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    out: Tensor = (wide if len(matrix) <= matrix.shape[1] else wide.T).to(matrix.dtype)
    return out
