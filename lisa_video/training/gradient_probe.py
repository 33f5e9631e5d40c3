"""How the two losses pull on the branch: norms of their gradients by part, and the angle between them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lisa_video import distributed
from lisa_video.conditioning import EncodedBatch
from lisa_video.models.controlled import ControlledDenoiser
from lisa_video.objective import LISAWeight, Objective

_PARTS = {"pose_encoder": "pose_encoder", "zero_conv": "zero_convs"}  # beginnings of names in a branch; else "trunk"


def part_of(name: str) -> str:
    """Part of `ControlledDenoiser` that a trainable parameter belongs to."""
    module, _, rest = name.partition(".")
    if module == "decoder":
        return "decoder"
    return next((part for start, part in _PARTS.items() if rest.startswith(start)), "trunk")


def probe_gradients(objective: Objective, model: ControlledDenoiser, batch: EncodedBatch) -> dict[str, float]:
    """Differentiate both losses on one batch, apart from training: no gradient is left in the model.

    Costs two forward and two backward passes, and twice the memory of the trainable parameters while it works. Needs
    whole parameters: ZeRO stages 0 to 2. Every rank must call it, with as many clips as the others.

    Args:
        objective: of the run.
        model: in training, outside its engine.
        batch: any.

    Returns:
        `gradient/LOSS/PART`, norms of gradients averaged over ranks, those of LISA times lambda as they enter the
        step; and `gradient/cosine` between both on the branch (the decoder has none of the first): 1 if they pull the
        same way, 0 if they do not meet, below 0 if they fight. It is absent where one of them is zero.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    denoising = _gradients(replace(objective, lisa_weight=LISAWeight(0.0)), model, batch, named)
    metrics = _norms("denoising", named, denoising)
    if model.decoder is None:
        return metrics
    both = _gradients(objective, model, batch, named)
    lisa = [together - alone for together, alone in zip(both, denoising, strict=True)]
    return metrics | _norms("lisa", named, lisa) | _cosine(named, denoising, lisa)


def _gradients(
    objective: Objective, model: ControlledDenoiser, batch: EncodedBatch, named: Mapping[str, Tensor]
) -> list[Tensor]:
    """Of the total loss, averaged over ranks, in float32."""
    loss = replace(objective, lisa_every=1)(model, batch).total
    averaged = []
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    for gradient, p in zip(found, named.values(), strict=True):
        own = torch.zeros_like(p, dtype=torch.float32) if gradient is None else gradient.float()
        own = own / distributed.world_size()
        distributed.add_up(own)
        averaged.append(own)
    return averaged


def _norms(loss: str, names: Iterable[str], gradients: list[Tensor]) -> dict[str, float]:
    squares: dict[str, float] = defaultdict(float)
    for name, gradient in zip(names, gradients, strict=True):
        squares[part_of(name)] += float(gradient.square().sum())
    return {f"gradient/{loss}/{part}": math.sqrt(square) for part, square in squares.items()}


def _cosine(names: Iterable[str], denoising: list[Tensor], lisa: list[Tensor]) -> dict[str, float]:
    product = first = second = 0.0
    for name, a, b in zip(names, denoising, lisa, strict=True):
        if part_of(name) != "decoder":
            product += float((a * b).sum())
            first, second = first + float(a.square().sum()), second + float(b.square().sum())
    return {"gradient/cosine": product / math.sqrt(first * second)} if first > 0 and second > 0 else {}
