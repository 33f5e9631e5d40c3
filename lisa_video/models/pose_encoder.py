"""The pose encoder: pose map to the side branch's first feature map, frame by frame (ControlNet, Zhang et al. 2023)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@final
class PoseEncoder(nn.Module):
    """3x3 convolutions that halve the resolution until the latent grid is reached.

    Args:
        out_channels: channels of the side branch's first feature map.
        hidden_channels: widths from the pixel grid to the latent grid; each further entry halves the resolution,
            so (16, 32, 96, 256) goes down by 8.
        last_init: "zero" (published ControlNet: the branch starts blind to the pose) or "default". With "zero", the
            last convolution and the branch's zero convolutions are two zero layers in series, and neither gets a
            gradient through the other until the first has moved.
    """

    def __init__(
        self, out_channels: int, hidden_channels: tuple[int, ...], last_init: Literal["zero", "default"] = "zero"
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, hidden_channels[0], 3, padding=1)
        blocks: list[nn.Module] = []
        for narrow, wide in pairwise(hidden_channels):
            blocks += [nn.Conv2d(narrow, narrow, 3, padding=1), nn.Conv2d(narrow, wide, 3, padding=1, stride=2)]
        self.blocks = nn.ModuleList(blocks)
        self.conv_out = nn.Conv2d(hidden_channels[-1], out_channels, 3, padding=1)
        # SiLU halves small signals, so a gain of 2 keeps their size: on demo poses the output varies by about 0.6
        # over the picture. With the framework's own initialisation it was 0.002, and the branch all but blind.
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, std=2 / math.sqrt(part.weight[0].numel()))
                assert part.bias is not None
                nn.init.zeros_(part.bias)
        if last_init == "zero":
            nn.init.zeros_(self.conv_out.weight)
            assert self.conv_out.bias is not None
            nn.init.zeros_(self.conv_out.bias)

    def forward(self, pose_maps: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        """Pose maps in [0, 1] -> features on the latent grid."""
        x = F.silu(self.conv_in(pose_maps))
        for block in self.blocks:
            x = F.silu(block(x))
        out: Tensor = self.conv_out(x)
        return out
