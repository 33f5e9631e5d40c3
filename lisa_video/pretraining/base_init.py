"""A useful start for the tiny UNet: "the clip is the reference picture, standing still", as far as a linear map goes.

With the reference's latents R on the input and u = c_in x_s, the network starts as F = a R + b u, the least-squares
fit of its target over noise levels. Training then only has to learn what differs: the motion. The map runs through
the first convolution, the uppermost skip, the last residual block's shortcut, and, in pairs (x, -x) beside constant
carriers, through the last normalisation and activation (see `vae_init`).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lisa_video.pretraining.vae_init import carriers, channel_pairs, group_deviation


@torch.no_grad()
def fit_still_picture(
    target: Float[Tensor, "B F C h w"], model_input: Float[Tensor, "B F C h w"], image_latents: Float[Tensor, "B C h w"]
) -> Float[Tensor, "C 2"]:
    """Per channel, (a, b) of the least-squares fit target = a R + b u."""
    reference = image_latents[:, None].expand_as(target)
    fits = []
    for channel in range(target.shape[2]):
        inputs = torch.stack([reference[:, :, channel].flatten(), model_input[:, :, channel].flatten()], dim=1)
        fits.append(torch.linalg.lstsq(inputs, target[:, :, channel].flatten()[:, None]).solution[:, 0])
    return torch.stack(fits)


@torch.no_grad()
def initialise_as_still_picture(unet: Any, coefficients: Float[Tensor, "C 2"]) -> None:
    """Set the weights of a `UNetSpatioTemporalConditionModel` whose first width is at least four times C."""
    channels = len(coefficients)
    groups, width = unet.conv_norm_out.num_groups, unet.conv_norm_out.num_channels
    damp_residual_branches(unet)
    for source in range(2 * channels):  # u, then R, each on a channel of its own
        unet.conv_in.weight[source] = 0.0
        unet.conv_in.weight[source, source, 1, 1] = 1.0
        unet.conv_in.bias[source] = 0.0
    slots = channel_pairs(width, groups, channels)
    shortcut = unet.up_blocks[-1].resnets[-1].spatial_res_block.conv_shortcut
    shortcut.weight.zero_()
    shortcut.bias.copy_(carriers(width, slots))
    deviation = group_deviation(width, groups, channels)
    skip = shortcut.in_channels - width  # the skip's channels come after the hidden ones
    for channel, (plus, minus) in enumerate(slots):
        on_reference, on_input = coefficients[channel].tolist()
        for slot, sign in ((plus, 1.0), (minus, -1.0)):
            shortcut.weight[slot, skip + channels + channel, 0, 0] = sign * on_reference
            shortcut.weight[slot, skip + channel, 0, 0] = sign * on_input
            unet.conv_out.weight[channel, slot, 1, 1] = sign * deviation


def damp_residual_branches(network: nn.Module) -> None:
    """Zero the last layer of every residual branch and of the network (Ho et al. 2020; Dhariwal & Nichol 2021).

    The network starts as little more than its skips, and trains in fewer steps.
    """
    for name, part in network.named_modules():
        last = name.rpartition(".")[2]
        is_last = last in ("proj_out", "conv_out") or (last == "conv2" and ".resnets." in f".{name}")
        if is_last and isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d):
            nn.init.zeros_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
