"""`KeypointNet`: a small network that finds the joints of one person in a small picture.

It is the demo's own pose detector, and its pooled features serve the demo's Frechet distance. Pictures keep their
resolution in a path of three scales; joints are read from heatmaps by a soft-argmax around the peak, which is finer
than a cell (cf. Luvizon et al., "Human pose regression by combining indirect part detection and contextual
information", 2019).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from lisa_video.errors import UserError

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
_STRIDE = 2  # pixels per heatmap cell
_WINDOW = 3  # cells on each side of the peak that the soft-argmax looks at


class KeypointMaps(NamedTuple):
    """Raw outputs: what the losses see and `decode` reads.

    Attributes:
        heat_logits: (N, K, H/2, W/2), softmax over the cells is the joint's place.
        visible_logits: (N, K), sigmoid is the probability that the joint is in sight.
    """

    heat_logits: Tensor
    visible_logits: Tensor


class KeypointNet(nn.Module):
    """Convolutional heatmap network for one person.

    Args:
        num_joints: K.
        size: side of the square pictures that it was trained on, pixels; a multiple of 8.
        width: channels at half resolution; twice at a quarter, three times at an eighth.
        feature_dim: D, channels of the bottleneck that `features` pools.
        depth: residual blocks at an eighth of the resolution.
    """

    def __init__(
        self, num_joints: int = 17, size: int = 64, width: int = 32, feature_dim: int = 64, depth: int = 3
    ) -> None:
        super().__init__()
        if size % 8:
            raise ValueError(f"size {size} must be a multiple of 8")
        self.settings = {
            "num_joints": num_joints, "size": size, "width": width, "feature_dim": feature_dim, "depth": depth,
        }  # fmt: skip
        self.num_joints, self.size, self.feature_dim = num_joints, size, feature_dim
        half, quarter, eighth = width, 2 * width, 3 * width
        self.to_half = _convolution(3, half, stride=2)
        self.to_quarter = nn.Sequential(_convolution(half, quarter, stride=2), _Residual(quarter))
        self.to_eighth = nn.Sequential(
            _convolution(quarter, eighth, stride=2), *(_Residual(eighth) for _ in range(depth))
        )
        self.bottleneck = _convolution(eighth, feature_dim, kernel=1)
        self.from_eighth = _convolution(feature_dim, quarter, kernel=1)
        self.merge = nn.Sequential(_Residual(quarter), _Residual(quarter))
        # Per cell of a quarter resolution: four cells of the heatmap at half resolution, and one visibility.
        self.to_maps = nn.Conv2d(quarter, num_joints * 5, kernel_size=3, padding=1)

    def forward(self, frames: Float[Tensor, "N 3 H W"]) -> KeypointMaps:
        """Frames in [-1, 1], sides multiples of 8 -> heatmaps at half resolution and visibilities."""
        quarter = self.to_quarter(self.to_half(frames))
        coarse = self.from_eighth(self.bottleneck(self.to_eighth(quarter)))
        merged = self.merge(quarter + functional.interpolate(coarse, scale_factor=2.0, mode="nearest"))
        maps = self.to_maps(merged)
        heat = functional.pixel_shuffle(maps[:, : 4 * self.num_joints], 2)
        # Visibility is read where the heatmap looks: (N,K,h,w) weights and logits -> (N,K).
        place = functional.avg_pool2d(_spatial_softmax(heat), 2) * 4
        visible = (place * maps[:, 4 * self.num_joints :]).sum(dim=(2, 3))
        return KeypointMaps(heat, visible)

    def features(self, frames: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """Frames in [-1, 1] -> the bottleneck, averaged over the picture; D = feature_dim, values >= 0."""
        pooled: Tensor = self.bottleneck(self.to_eighth(self.to_quarter(self.to_half(frames)))).mean(dim=(2, 3))
        return pooled

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `model.safetensors` (fp16) and `config.json`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {
            name: value.to(torch.float16).contiguous() if value.is_floating_point() else value
            for name, value in self.state_dict().items()
        }
        save_file(weights, folder / WEIGHTS_FILE)
        (folder / CONFIG_FILE).write_text(json.dumps(self.settings, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> KeypointNet:
        """Read what `save_pretrained` wrote, as fp32 and in evaluation mode.

        Raises:
            UserError: a file is missing or does not fit.
        """
        folder = Path(folder)
        try:
            net = cls(**json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
            net.load_state_dict(load_file(folder / WEIGHTS_FILE))
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise UserError(
                f"cannot read the keypoint network ({error})",
                where=folder,
                remedy="train it with `lisa_video.pretraining.keypoints`, or name the folder that it was saved to",
            ) from error
        return net.eval()


def network_input(
    frames: UInt8[np.ndarray, "N H W 3"], size: int, device: str | torch.device = "cpu"
) -> Float[Tensor, "N 3 h w"]:
    """RGB frames in [0, 255] of any size -> (N, 3, size, size) in [-1, 1], what a `KeypointNet` wants."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2).float()
    pixels = pixels.div(127.5).sub(1.0)
    if pixels.shape[2:] != (size, size):
        pixels = functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    return pixels.contiguous(memory_format=torch.channels_last)


def decode(maps: KeypointMaps, size: tuple[int, int]) -> tuple[Float[Tensor, "N K 2"], Float[Tensor, "N K"]]:
    """Places and confidences of the joints.

    The place is the expectation over the cells around the peak, weighted by the heatmap; a cell's place is its centre.

    Args:
        maps: outputs of the network for pictures of any size.
        size: (height, width) in pixels of the pictures in whose coordinates to answer.

    Returns:
        xy in pixels, (0, 0) at the outer corner of the top left pixel; score in [0, 1].
    """
    heat = _spatial_softmax(maps.heat_logits)
    h, w = heat.shape[2:]
    peak = heat.flatten(2).argmax(dim=2)
    rows, columns = torch.arange(h, device=heat.device), torch.arange(w, device=heat.device)
    near_row = (rows - (peak // w)[..., None]).abs() <= _WINDOW  # (N,K,h)
    near_column = (columns - (peak % w)[..., None]).abs() <= _WINDOW  # (N,K,w)
    local = heat * near_row[..., :, None] * near_column[..., None, :]
    local = local / local.sum(dim=(2, 3), keepdim=True)
    x = (local.sum(dim=2) * (columns + 0.5)).sum(dim=2) * (size[1] / w)
    y = (local.sum(dim=3) * (rows + 0.5)).sum(dim=2) * (size[0] / h)
    return torch.stack([x, y], dim=-1), maps.visible_logits.sigmoid()


def heatmap_target(xy: Float[Tensor, "N K 2"], size: tuple[int, int], sigma_px: float) -> Float[Tensor, "N K h w"]:
    """Normal density around each joint on the cells of the heatmap, normalised to sum 1 over the cells.

    Args:
        xy: pixels of the picture; must be finite (mask unknown joints in the loss).
        size: (height, width) of the picture, pixels.
        sigma_px: standard deviation, pixels.
    """
    columns = (torch.arange(size[1] // _STRIDE, device=xy.device) + 0.5) * _STRIDE
    rows = (torch.arange(size[0] // _STRIDE, device=xy.device) + 0.5) * _STRIDE
    across = torch.softmax(-((columns - xy[..., 0, None]) ** 2) / (2 * sigma_px**2), dim=-1)
    down = torch.softmax(-((rows - xy[..., 1, None]) ** 2) / (2 * sigma_px**2), dim=-1)
    return down[..., :, None] * across[..., None, :]


def weights_digest(folder: str | Path) -> str:
    """`sha256:...` of the weights file, the identity of a detector in a protocol."""
    return "sha256:" + hashlib.sha256((Path(folder) / WEIGHTS_FILE).read_bytes()).hexdigest()


def _spatial_softmax(logits: Float[Tensor, "N K h w"]) -> Float[Tensor, "N K h w"]:
    return torch.softmax(logits.flatten(2), dim=2).view_as(logits)


def _convolution(inputs: int, outputs: int, *, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.second(self.first(x))
        return functional.relu(x + changed)
