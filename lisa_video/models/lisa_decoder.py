"""The LISA decoder: one side-branch feature, frame by frame, to the likelihood score (arXiv 2606.27192).

It exists in training only. The decoder of the image paper is kept as it is (time embedding, convolutions that halve
the channels, nearest upsampling, a zero-initialised last convolution); for video, every frame also sees the mean of
the feature over the clip, through a zero-initialised 1x1 projection.
"""

from __future__ import annotations

import math
from typing import Literal, final

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

_TIME_CHANNELS = 256
_MIN_CHANNELS = 64
_POINTWISE_FROM = 512  # from this width on, the first convolution is 1x1


def sinusoidal_embedding(t: Float[Tensor, " B"], channels: int = _TIME_CHANNELS) -> Float[Tensor, "B C"]:
    """Sinusoidal embedding of a number (Vaswani et al. 2017; cosines first, as diffusers orders them)."""
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(channels // 2, device=t.device) / (channels // 2))
    angles = t.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


@final
class LISADecoder(nn.Module):
    """D(h, t): feature of one branch layer -> prediction of `target - frozen prediction`.

    Args:
        feature_channels: channels of the hooked feature.
        stride: its down-scaling against the latent grid, a power of two.
        latent_channels: C.
        temporal_pooling: let each frame see the feature's mean over the clip.
        last_init: "zero" (published) or "default" initialisation of the last convolution.
    """

    def __init__(
        self,
        feature_channels: int,
        stride: int,
        latent_channels: int,
        *,
        temporal_pooling: bool = True,
        last_init: Literal["zero", "default"] = "zero",
    ) -> None:
        super().__init__()
        doublings = int(math.log2(stride))
        if 2**doublings != stride:
            raise ValueError(f"stride must be a power of two, got {stride}")
        self.time_proj = nn.Linear(_TIME_CHANNELS, feature_channels)
        self.context_proj = _zeroed(nn.Conv2d(feature_channels, feature_channels, 1)) if temporal_pooling else None
        stages, channels = [], feature_channels
        for stage in range(doublings):
            narrower = max(channels // 2, min(channels, _MIN_CHANNELS))
            pointwise = stage == 0 and channels >= _POINTWISE_FROM
            stages.append(nn.Conv2d(channels, narrower, 1 if pointwise else 3, padding=0 if pointwise else 1))
            channels = narrower
        self.stages = nn.ModuleList(stages)
        last = nn.Conv2d(channels, latent_channels, 3, padding=1)
        self.conv_out = _zeroed(last) if last_init == "zero" else last

    def forward(
        self, feature: Float[Tensor, "BF D hl wl"], timestep: Float[Tensor, " B"], latent_size: tuple[int, int]
    ) -> Float[Tensor, "B F C h w"]:
        """Decode the feature of B clips, frames folded into the batch, to the latent grid (h, w)."""
        batch = len(timestep)
        embedding = sinusoidal_embedding(timestep).to(feature.dtype)
        x = rearrange(feature, "(b f) d h w -> b f d h w", b=batch)
        if self.context_proj is not None:
            context = self.context_proj(reduce(x, "b f d h w -> b d h w", "mean"))
            x = x + context[:, None]
        x = x + F.silu(self.time_proj(embedding))[:, None, :, None, None]
        x = rearrange(x, "b f d h w -> (b f) d h w")
        for remaining, stage in zip(range(len(self.stages) - 1, -1, -1), self.stages, strict=True):
            # Sizes are those of a grid halved with rounding up, so that odd and non-square latents fit exactly.
            size = [math.ceil(side / 2**remaining) for side in latent_size]
            x = F.interpolate(F.silu(stage(x)), size=size, mode="nearest")
        out: Tensor = rearrange(self.conv_out(x), "(b f) c h w -> b f c h w", b=batch)
        return out
