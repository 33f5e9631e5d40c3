"""CUDA graphs: one pass of the model, forward and backward, captured once and replayed.

A small network's kernels are shorter than the time that it takes to launch them; a replayed graph launches them all at
once. The numbers are those of the eager pass: the same kernels run on the same memory.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from lisa_video.conditioning import EncodedBatch
from lisa_video.models.backbone import Condition
from lisa_video.models.controlled import ControlledDenoiser, Prediction


@final
class _TensorsOnly(nn.Module):
    """The model with tensors only on both sides, as `torch.cuda.make_graphed_callables` wants them."""

    def __init__(self, model: ControlledDenoiser) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, x_s: Tensor, s: Tensor, image: Tensor, embedding: Tensor, time_ids: Tensor, pose: Tensor
    ) -> tuple[Tensor, ...]:
        prediction = self.model(x_s, s, Condition(image, embedding, time_ids), pose)
        return tuple(part for part in prediction if part is not None)


def capture(model: ControlledDenoiser, example: EncodedBatch) -> None:
    """Replace the model's forward pass by a replayed one, for batches shaped like the example that are trained on.

    Other calls go on as before. Gradients lie in the graph's own memory: take them (optimizer step, then no gradients)
    before the next pass.

    Args:
        model: on a GPU, in training mode, its parameters where they will stay.
        example: a batch of the run.
    """
    noise_levels = torch.ones(len(example.latents), device=example.latents.device)
    inputs = tuple(
        tensor.detach().clone() for tensor in (example.latents, noise_levels, *example.condition, example.pose_maps)
    )
    graphed = torch.cuda.make_graphed_callables(_TensorsOnly(model), inputs, allow_unused_input=True)
    eager, shape = model.forward, example.latents.shape

    def forward(
        x_s: Tensor,
        s: Tensor,
        condition: Condition,
        pose_maps: Tensor | None,
        align: bool = True,
        with_frozen: bool = False,
    ) -> Prediction:
        if pose_maps is None or x_s.shape != shape or not align or with_frozen or not torch.is_grad_enabled():
            return eager(x_s, s, condition, pose_maps, align, with_frozen)
        parts: Any = graphed(x_s, s, *condition, pose_maps)
        return Prediction(*parts) if len(parts) == len(Prediction._fields) else Prediction(parts[0], None, None)

    model.forward = forward  # type: ignore[method-assign]
