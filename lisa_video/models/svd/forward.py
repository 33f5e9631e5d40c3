"""The stock SVD UNet's forward pass in two halves, by calling its own blocks.

Residuals reach the UNet only at its skips and its middle. All before that, `encode`, is the same with and without
residuals and is therefore computed once, without gradients. The side branch has the same encoder half, so it runs
through the same function. `decode(encode(...))` equals diffusers' own forward bit for bit (tested).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor

from lisa_video.models.backbone import ControlResiduals


class EncoderState(NamedTuple):
    """What the decoder half needs; frames are folded into the batch, (B*F, ...).

    Attributes:
        middle: output of the middle block.
        skips: the twelve skip features, from the latent grid down.
        embedding: (B*F, E) time embedding.
        context: (B*F, T, D) cross-attention tokens.
        indicator: (B, F) zeros: no frame is a still image.
    """

    middle: Tensor
    skips: tuple[Tensor, ...]
    embedding: Tensor
    context: Tensor
    indicator: Tensor


def embed_time(net: Any, timestep: Tensor, time_ids: Tensor, dtype: torch.dtype) -> Tensor:
    """(B,) timesteps and (B, 3) added time ids -> (B, E) embedding."""
    embedding = net.time_embedding(net.time_proj(timestep).to(dtype))
    added = net.add_time_proj(time_ids.flatten()).reshape(len(time_ids), -1).to(embedding.dtype)
    total: Tensor = embedding + net.add_embedding(added)
    return total


def encode(
    net: Any,
    sample: Tensor,
    timestep: Tensor,
    context: Tensor,
    time_ids: Tensor,
    pose_features: Tensor | None = None,
) -> EncoderState:
    """Run the encoder half and the middle block of the UNet, or of a side branch built like it.

    Args:
        net: module with the UNet's encoder attributes (`conv_in`, `time_*`, `add_*`, `down_blocks`, `mid_block`).
        sample: (B, F, C_in, h, w) network input, image latents included.
        timestep: (B,).
        context: (B, T, D) cross-attention tokens.
        time_ids: (B, 3).
        pose_features: (B*F, C_0, h, w), added to the first feature map (side branch only).
    """
    batch, frames = sample.shape[:2]
    embedding = embed_time(net, timestep, time_ids, sample.dtype).repeat_interleave(frames, dim=0)
    context = context.repeat_interleave(frames, dim=0)
    indicator = torch.zeros(batch, frames, dtype=sample.dtype, device=sample.device)

    x = net.conv_in(sample.flatten(0, 1))
    if pose_features is not None:
        x = x + pose_features
    skips: tuple[Tensor, ...] = (x,)
    for block in net.down_blocks:
        attends = {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}
        x, block_skips = block(hidden_states=x, temb=embedding, image_only_indicator=indicator, **attends)
        skips += tuple(block_skips)
    middle = net.mid_block(
        hidden_states=x, temb=embedding, encoder_hidden_states=context, image_only_indicator=indicator
    )
    return EncoderState(middle, skips, embedding, context, indicator)


def decode(unet: UNetSpatioTemporalConditionModel, state: EncoderState, residuals: ControlResiduals | None) -> Tensor:
    """Run the decoder half; each residual is added exactly once. Returns (B, F, C, h, w)."""
    x, skips = state.middle, state.skips
    if residuals is not None:
        x = x + residuals.mid
        skips = tuple(skip + residual for skip, residual in zip(skips, residuals.down, strict=True))
    # Latent sides that the UNet cannot halve evenly need the size of the next skip at each upsampling.
    uneven = any(side % 2**unet.num_upsamplers for side in skips[0].shape[-2:])
    for block in unet.up_blocks:
        taken = len(block.resnets)
        block_skips, skips = skips[-taken:], skips[:-taken]
        attends = {"encoder_hidden_states": state.context} if getattr(block, "has_cross_attention", False) else {}
        x = block(
            hidden_states=x,
            temb=state.embedding,
            res_hidden_states_tuple=block_skips,
            upsample_size=skips[-1].shape[2:] if uneven and skips else None,
            image_only_indicator=state.indicator,
            **attends,
        )
    x = unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))
    out: Tensor = x.reshape(*state.indicator.shape, *x.shape[1:])
    return out
