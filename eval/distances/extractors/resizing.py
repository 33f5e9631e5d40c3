"""How clips are brought to a network's size: published scores of the same videos differ by this up to twofold."""

from __future__ import annotations

import math
from typing import Literal

from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

Resize = Literal["squash", "centre-crop", "own"]
"""`squash`: both sides to the network's size, aspect lost (cd-fvd, TATS, FastVideo). `centre-crop`: the shorter side to
the network's size, then the square in the middle (common_metrics_on_video_quality). `own`: what the network's publisher
does: inside the TorchScript file (StyleGAN-V), or the transforms of torchvision's weights."""


def resize_clips(
    videos: UInt8[Tensor, "N 3 F H W"], size: int, mode: Literal["squash", "centre-crop"]
) -> Float[Tensor, "N 3 F s s"]:
    """Square clips in [0, 255], bilinear without antialias or aligned corners, as all these scores have it.

    Args:
        videos: RGB.
        size: side, pixels.
        mode: see `Resize`.
    """
    height, width = videos.shape[3:]
    if mode == "squash":
        target = (size, size)
    elif height < width:
        target = (size, math.ceil(width * (size / height)))
    else:
        target = (math.ceil(height * (size / width)), size)
    frames = videos.transpose(1, 2).flatten(0, 1).float()
    if target != (height, width):
        frames = functional.interpolate(frames, size=target, mode="bilinear", align_corners=False, antialias=False)
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    frames = frames[:, :, top : top + size, left : left + size]
    return frames.reshape(len(videos), -1, 3, size, size).transpose(1, 2)


def resize_rule(size: int, mode: Literal["squash", "centre-crop"]) -> str:
    """The same in words, for protocols."""
    how = {
        "squash": f"squash: to {size} x {size}",
        "centre-crop": f"centre-crop: shorter side to {size}, then the {size} x {size} in the middle",
    }
    return f"{how[mode]}; bilinear, no antialias"
