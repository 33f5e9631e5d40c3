"""An experiment: m and m0 as one batch through the frozen decoder half.

With gradient checkpointing the forward pass of m keeps no activations, so m0 can ride along in the same batch; the
backward pass then computes m's half of each block again. Half as many kernels in the forward pass, each twice as large.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor

from lisa_video.models.backbone import ControlResiduals
from lisa_video.models.svd.forward import EncoderState


class _BlockForBoth(torch.autograd.Function):
    """One decoder block: (x of m, x of m0, skips of m, skips of m0) -> (out of m, out of m0)."""

    @staticmethod
    def forward(ctx: Any, block: Any, keywords: dict[str, Any], x: Tensor, x0: Tensor, *skips: Tensor) -> Any:
        half = len(skips) // 2
        ctx.block, ctx.keywords = block, keywords
        ctx.save_for_backward(x, *skips[:half])
        twice = {
            name: torch.cat([value, value]) if isinstance(value, Tensor) else value for name, value in keywords.items()
        }
        both = tuple(torch.cat(pair) for pair in zip(skips[:half], skips[half:], strict=True))
        out, out0 = block(hidden_states=torch.cat([x, x0]), res_hidden_states_tuple=both, **twice).chunk(2)
        ctx.mark_non_differentiable(out0)
        return out, out0

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> Any:
        with torch.enable_grad():
            x, *skips = (tensor.detach().requires_grad_() for tensor in ctx.saved_tensors)
            out = ctx.block(hidden_states=x, res_hidden_states_tuple=tuple(skips), **ctx.keywords)
            gradients = torch.autograd.grad(out, (x, *skips), gradient)
        return None, None, gradients[0], None, *gradients[1:], *[None] * len(skips)


def decode_both(
    unet: UNetSpatioTemporalConditionModel, state: EncoderState, residuals: ControlResiduals
) -> tuple[Tensor, Tensor]:
    """M and m0, (B, F, C, h, w) each; sides that the UNet halves evenly."""
    x, x0, skips0 = state.middle + residuals.mid, state.middle, state.skips
    skips = tuple(skip + residual for skip, residual in zip(skips0, residuals.down, strict=True))
    for block in unet.up_blocks:
        taken = len(block.resnets)
        keywords = {"temb": state.embedding, "upsample_size": None, "image_only_indicator": state.indicator}
        if getattr(block, "has_cross_attention", False):
            keywords["encoder_hidden_states"] = state.context
        x, x0 = _BlockForBoth.apply(block, keywords, x, x0, *skips[-taken:], *skips0[-taken:])
        skips, skips0 = skips[:-taken], skips0[:-taken]

    def head(x: Tensor) -> Tensor:
        x = unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))
        return x.reshape(*state.indicator.shape, *x.shape[1:])

    with torch.no_grad():
        frozen = head(x0)
    return head(x), frozen
