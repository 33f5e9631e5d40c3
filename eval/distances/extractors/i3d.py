"""I3D, the inflated Inception-v1 of Carreira and Zisserman (2017): clips -> 400 Kinetics logits.

Written for inference only. Batch normalisation is part of the convolutions before it (a fixed scale and shift per
channel, put into weights and bias when they are loaded), and the three 1x1x1 convolutions that read the same input
in an Inception block are one. Padding follows TensorFlow's SAME rule, which depends on the size of the input and puts
the odd element at the end; without that the logits are wrong by more than 10.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 400
MIN_FRAMES = 9
"""Fewer frames leave one step in time, and the last pooling needs two."""

BLOCKS = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
"""Name of a block -> channels in; channels of its six convolutions: 1x1, 1x1 + 3x3, 1x1 + 3x3, pool + 1x1."""


class InceptionBlock(nn.Module):
    """Four branches over the same input, stacked as channels.

    Args:
        inputs: channels in.
        widths: channels of the six convolutions, see `BLOCKS`.
    """

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.splits = [widths[0], widths[1], widths[3]]
        self.entry = nn.Conv3d(inputs, sum(self.splits), 1)
        self.large = nn.Conv3d(widths[1], widths[2], 3, padding=1)
        self.small = nn.Conv3d(widths[3], widths[4], 3, padding=1)
        self.pooled = nn.Conv3d(inputs, widths[5], 1)

    def forward(self, x: Float[Tensor, "B C t h w"]) -> Float[Tensor, "B c t h w"]:
        """See the class."""
        plain, large, small = torch.split(functional.relu_(self.entry(x)), self.splits, dim=1)
        pooled = _max_pool(x, (3, 3, 3), (1, 1, 1))
        rest = (self.large(large), self.small(small), self.pooled(pooled))
        return torch.cat([plain, *map(functional.relu_, rest)], dim=1)


class I3D(nn.Module):
    """The network; its weights come from `eval.distances.extractors.i3d_weights`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 64, 7, stride=2)
        self.narrow = nn.Conv3d(64, 64, 1)
        self.widen = nn.Conv3d(64, 192, 3, padding=1)
        self.blocks = nn.ModuleDict({name: InceptionBlock(*sizes) for name, sizes in BLOCKS.items()})
        self.logits = nn.Conv3d(1024, CLASSES, 1)

    def forward(self, videos: Float[Tensor, "B 3 F 224 224"]) -> Float[Tensor, "B 400"]:
        """Logits, averaged over time, before the softmax.

        Args:
            videos: RGB in [-1, 1], at least `MIN_FRAMES` frames.
        """
        pads = [pad for size in reversed(videos.shape[2:]) for pad in _same_padding(size, 7, 2)]
        x = functional.relu_(self.stem(functional.pad(videos, pads)))
        x = _max_pool(x, (1, 3, 3), (1, 2, 2))
        x = functional.relu_(self.widen(functional.relu_(self.narrow(x))))
        x = _max_pool(x, (1, 3, 3), (1, 2, 2))
        for name, block in self.blocks.items():
            if name == "Mixed_4b":
                x = _max_pool(x, (3, 3, 3), (2, 2, 2))
            elif name == "Mixed_5b":
                x = _max_pool(x, (2, 2, 2), (2, 2, 2))
            x = block(x)
        logits: Tensor = self.logits(functional.avg_pool3d(x, (2, 7, 7), stride=1))
        return logits.mean(dim=(2, 3, 4))


def _max_pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """SAME maximum pooling, one axis after the other: equal to `max_pool3d`, and several times as fast on a CPU."""
    for axis, width, step in zip((2, 3, 4), kernel, stride, strict=True):
        x = _max_along(x, axis, width, step)
    return x


def _max_along(x: Tensor, axis: int, width: int, step: int) -> Tensor:
    size = x.shape[axis]
    before, _ = _same_padding(size, width, step)
    largest = _every(x, axis, 0, size, step).clone(memory_format=torch.preserve_format)
    for shift in range(-before, width - before):
        first = max(0, -(shift // step))  # windows before it would look outside of x here, as those after `last` would
        last = min(largest.shape[axis], (size - 1 - shift) // step + 1)
        if shift and last > first:
            inside = largest.narrow(axis, first, last - first)
            torch.maximum(
                inside, _every(x, axis, first * step + shift, (last - 1) * step + shift + 1, step), out=inside
            )
    return largest


def _every(x: Tensor, axis: int, start: int, stop: int, step: int) -> Tensor:
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


def _same_padding(size: int, width: int, step: int) -> tuple[int, int]:
    """Elements before and after, as TensorFlow's SAME has them: ceil(size / step) windows fit, the odd one is after."""
    missing = max((-(-size // step) - 1) * step + width - size, 0)
    return missing // 2, missing - missing // 2
