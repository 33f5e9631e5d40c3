"""A closed-form start for the tiny VAE: its encoder computes patch PCA, its decoder the best linear way back.

A small convolutional autoencoder spends thousands of steps on learning what principal components give at once (on
the demo data, 16 components of 8x8 patches keep 30 dB). The stock architecture can hold that solution exactly:

- residual blocks start as the identity (their second convolution is zero);
- strided convolutions gather 2x2 neighbours into channels; the last of them applies the principal directions;
- a group normalisation over (x, -x, k, -k) with a constant k >> x only scales x by an almost constant factor, and
  silu(x) - silu(-x) = x, so the final normalisation and activation let x through. This needs at least four channels
  a group, which the stock number of groups does not give at these widths: hence the `norm_groups` option;
- each upsampling convolution is the least-squares fit of the next finer patches from its 3x3 neighbourhood.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D, TemporalResnetBlock
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

_CARRIER = 10.0  # the constant k, in units of the standard deviation of x
_LOGVAR = -4.6  # posterior noise of 0.1


@torch.no_grad()
def initialise_by_pca(vae: Any, frames: Float[Tensor, "N 3 H W"], norm_groups: int) -> None:
    """Set the weights of a VAE with three halvings so that it is a linear patch codec fitted to the frames.

    Args:
        vae: `AutoencoderKLTemporalDecoder` of widths (32, 64, 64, 64) or wider, any number of latent channels up to 16.
        frames: some hundred pictures in [-1, 1].
        norm_groups: groups of its normalisation layers.
    """
    residual_blocks_to_identity(vae)
    components = vae.config.latent_channels
    mean, directions, deviations = patch_pca(frames, 8, components)
    # Between whitened (all errors equal) and raw (errors as in pixels): latents proportional to sqrt(deviation).
    latent_scale = deviations.sqrt() / deviations.sqrt().square().mean().sqrt()
    _set_encoder(vae.encoder, mean, directions / deviations[:, None], latent_scale, norm_groups)
    nn.init.dirac_(vae.quant_conv.weight)
    vae.quant_conv.bias.zero_()
    white = F.conv2d(frames, _as_kernel(directions / deviations[:, None], 8), stride=8) - _bias(
        mean, directions / deviations[:, None]
    )
    _set_decoder(vae.decoder, frames, white, latent_scale)


def residual_blocks_to_identity(module: nn.Module) -> None:
    """Zero the last layer of every residual branch; a change of width becomes a plain copy of channels."""
    for part in module.modules():
        if isinstance(part, ResnetBlock2D | TemporalResnetBlock):
            nn.init.zeros_(part.conv2.weight)
            nn.init.zeros_(part.conv2.bias)
            if isinstance(part, ResnetBlock2D) and part.conv_shortcut is not None:
                nn.init.dirac_(part.conv_shortcut.weight)
                nn.init.zeros_(part.conv_shortcut.bias)
        elif isinstance(part, Attention):
            nn.init.zeros_(part.to_out[0].weight)


def patch_pca(frames: Float[Tensor, "N 3 H W"], side: int, components: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D), directions (components, D) and standard deviations (components) of patches, D = (3, side, side)."""
    patches = rearrange(frames, "n c (h p) (w q) -> (n h w) (c p q)", p=side, q=side).double()
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
    order = values.argsort(descending=True)[:components]
    return mean.float(), vectors[:, order].T.float(), values[order].clamp(min=1e-8).sqrt().float()


def _as_kernel(directions: Float[Tensor, "K D"], side: int) -> Float[Tensor, "K 3 p q"]:
    return rearrange(directions, "k (c p q) -> k c p q", c=3, p=side, q=side)


def _bias(mean: Tensor, directions: Tensor) -> Tensor:
    return (directions @ mean).view(1, -1, 1, 1)


def _gather_2x2(conv: Any, channels: int) -> None:
    """Strided convolution that stacks 2x2 neighbours: output channel (c, p, q)."""
    conv.weight.zero_()
    conv.bias.zero_()
    for c in range(channels):
        for tap in range(4):
            conv.weight[4 * c + tap, c, tap // 2, tap % 2] = 1.0


def _set_encoder(encoder: Any, mean: Tensor, whitening: Tensor, latent_scale: Tensor, groups: int) -> None:
    blocks = encoder.down_blocks
    nn.init.dirac_(encoder.conv_in.weight)
    encoder.conv_in.bias.zero_()
    _gather_2x2(blocks[0].downsamplers[0].conv, 3)
    _gather_2x2(blocks[1].downsamplers[0].conv, 12)
    # Channel of pixel (c, y, x) of an 8x8 patch after two gatherings, at tap (y // 4, x // 4) of the third.
    last = blocks[2].downsamplers[0].conv
    kernel, offset = _as_kernel(whitening, 8), whitening @ mean
    width = last.out_channels
    slots = channel_pairs(width, groups, len(kernel))
    last.weight.zero_()
    last.bias.copy_(carriers(width, slots))
    for k, (plus, minus) in enumerate(slots):
        for sign, slot in ((1.0, plus), (-1.0, minus)):
            # (c, Y, y1, y0, X, x1, x0) -> taps (Y, X), channels (c, y0, x0, y1, x1): finest neighbours first.
            split = kernel[k].view(3, 2, 2, 2, 2, 2, 2)
            last.weight[slot, :48, :2, :2] = sign * rearrange(split, "c Y b a X e d -> (c a d b e) Y X")
            last.bias[slot] = -sign * offset[k]
    deviation = group_deviation(width, groups, len(slots))
    encoder.conv_out.weight.zero_()
    encoder.conv_out.bias.zero_()
    encoder.conv_out.bias[len(slots) :] = _LOGVAR
    for k, (plus, minus) in enumerate(slots):
        encoder.conv_out.weight[k, plus, 1, 1] = deviation * latent_scale[k]
        encoder.conv_out.weight[k, minus, 1, 1] = -deviation * latent_scale[k]


def channel_pairs(width: int, groups: int, count: int) -> list[tuple[int, int]]:
    """Slots (x, -x) spread evenly over the groups; the rest of each group stays for carriers."""
    size, each = width // groups, math.ceil(count / groups)
    if 2 * each + 2 > size:
        raise ValueError(f"{count} pairs and carriers do not fit {groups} groups of {size} channels")
    return [(g * size + 2 * i, g * size + 2 * i + 1) for i in range(each) for g in range(groups)][:count]


def carriers(width: int, slots: list[tuple[int, int]]) -> Tensor:
    """Constants for the channels that carry no pair, in opposite signs; zero for the others."""
    taken = {slot for pair in slots for slot in pair}
    signs = [0.0 if c in taken else (1.0 if c % 2 == 0 else -1.0) for c in range(width)]
    return _CARRIER * torch.tensor(signs)


def group_deviation(width: int, groups: int, count: int, mean_square: float = 1.0) -> float:
    """Standard deviation that a group's normalisation divides by, for x of the given mean square."""
    size, each = width // groups, math.ceil(count / groups)
    return math.sqrt((2 * each * mean_square + (size - 2 * each) * _CARRIER**2) / size)


def _set_decoder(decoder: Any, frames: Tensor, white: Tensor, latent_scale: Tensor) -> None:
    channels = len(latent_scale)
    decoder.conv_in.weight.zero_()
    decoder.conv_in.bias.zero_()
    for k in range(channels):
        decoder.conv_in.weight[k, k, 1, 1] = 1 / latent_scale[k]
    stream = white
    for block, side, wanted in zip(decoder.up_blocks[:3], (4, 2, 1), (32, 12, 3), strict=True):
        mean, directions, deviations = patch_pca(frames, side, wanted)
        if side == 1:  # the last stage gives the colours themselves
            mean, directions, deviations = torch.zeros(3), torch.eye(3), torch.ones(3)
        whitening = directions / deviations[:, None]
        target = F.conv2d(frames, _as_kernel(whitening, side), stride=side) - _bias(mean, whitening)
        stream = _fit_upsampler(block.upsamplers[0].conv, stream, target)
    _set_output(decoder)


def _fit_upsampler(conv: Any, stream: Tensor, target: Tensor) -> Tensor:
    """Least squares from the 3x3 neighbourhoods of the nearest-upsampled stream; what fits is also passed on."""
    upsampled = F.interpolate(stream, scale_factor=2.0, mode="nearest")
    inputs = rearrange(F.unfold(upsampled, 3, padding=1), "n k p -> (n p) k").double()
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=torch.float64)], dim=1)
    wanted = rearrange(target, "n c h w -> (n h w) c").double()
    normal = inputs.T @ inputs
    ridge = 1e-6 * normal.diagonal().mean() * torch.eye(len(normal), dtype=torch.float64)
    solution = torch.linalg.solve(normal + ridge, inputs.T @ wanted).float()
    count, passed = target.shape[1], min(stream.shape[1], conv.out_channels - target.shape[1])
    conv.weight.zero_()
    conv.bias.zero_()
    conv.weight[:count, : stream.shape[1]] = rearrange(solution[:-1].T, "o (i a b) -> o i a b", a=3, b=3)
    conv.bias[:count] = solution[-1]
    for c in range(passed):
        conv.weight[count + c, c, 1, 1] = 1.0
    return F.conv2d(upsampled, conv.weight[: count + passed, : stream.shape[1]], conv.bias[: count + passed], padding=1)


def _set_output(decoder: Any) -> None:
    """Colours through the last normalisation and activation."""
    groups, width = decoder.conv_norm_out.num_groups, decoder.conv_norm_out.num_channels
    slots = channel_pairs(width, groups, 3)
    shortcut = decoder.up_blocks[3].resnets[0].spatial_res_block.conv_shortcut
    shortcut.bias.copy_(carriers(width, slots))
    # Channels outside the groups that hold colours need no carriers and keep what they had.
    size = width // groups
    used = {slot // size for slot, _ in slots}
    shortcut.weight.zero_()
    for c in range(width):
        if c // size not in used:
            shortcut.weight[c, min(c, shortcut.in_channels - 1), 0, 0] = 1.0
            shortcut.bias[c] = 0.0
    deviation = group_deviation(width, groups, len(slots), mean_square=0.25)  # of colours in [-1, 1]
    decoder.conv_out.weight.zero_()
    decoder.conv_out.bias.zero_()
    for colour, (plus, minus) in enumerate(slots):
        shortcut.weight[plus, colour, 0, 0], shortcut.weight[minus, colour, 0, 0] = 1.0, -1.0
        decoder.conv_out.weight[colour, plus, 1, 1] = deviation
        decoder.conv_out.weight[colour, minus, 1, 1] = -deviation
    nn.init.dirac_(decoder.time_conv_out.weight)
    decoder.time_conv_out.bias.zero_()
