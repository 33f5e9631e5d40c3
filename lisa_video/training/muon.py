"""Muon: weight matrices step along their orthogonalised momentum, everything else by AdamW.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), with the step's size matched to AdamW's
(Liu et al., arXiv 2502.16982). PyTorch's own takes two-dimensional weights only, and DeepSpeed's treats the kernel of a
temporal convolution as a batch of 1x1 matrices; a branch of a video network is mostly convolutions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.adamw import adamw

_QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al.: steepest at 0, so that five iterations are enough
_ITERATIONS = 5
_STACKED = 2**22  # elements of matrices that are stepped together
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
            for matrices in of_one_shape([p for p in due if p.ndim >= 2]):
                self._step_matrices(matrices, group)
            self._step_others([p for p in due if p.ndim < 2], group)

    def _step_matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        gradients = [p.grad for p in parameters if p.grad is not None]
        momenta, mu = [self.state[p]["momentum"] for p in parameters], group["momentum"]
        torch._foreach_lerp_(momenta, gradients, 1 - mu)
        ahead = torch._foreach_lerp(gradients, momenta, mu)
        directions = orthogonalised(torch.stack([direction.flatten(1) for direction in ahead]))
        directions = directions * (group["lr"] * _RMS * math.sqrt(max(directions.shape[1:])))
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_sub_(parameters, [d.view_as(p) for d, p in zip(directions, parameters, strict=True)])

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


def of_one_shape(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """Weights whose matrices have the same shape, to be stepped together: one launch instead of many.

    Large ones stand alone: they keep a GPU busy by themselves, and a stack of them would need their memory again.
    """
    by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
    for p in parameters:
        by_shape[tuple(p.flatten(1).shape)].append(p)
    together = ((max(_STACKED // math.prod(shape), 1), same) for shape, same in by_shape.items())
    return [same[start : start + count] for count, same in together for start in range(0, len(same), count)]


def orthogonalised(matrices: Float[Tensor, "*batch rows columns"]) -> Float[Tensor, "*batch rows columns"]:
    """Matrices with all singular values near 1 (0.7 to 1.2), by Newton-Schulz iterations; 0 stays 0.

    In bfloat16 on a GPU, which is precise enough for it (Jordan et al.) and several times as fast.
    """
    a, b, c = _QUINTIC
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    tall = x.shape[-2] > x.shape[-1]
    wide = x.mT if tall else x
    wide = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        gram = wide @ wide.mT
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    found: Tensor = (wide.mT if tall else wide).to(matrices.dtype)
    return found
