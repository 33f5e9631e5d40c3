"""`PoseDetector`: the one face behind which any detector of poses stands, and the demo's own detector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from lisa_video.pose.keypoint_net import KeypointNet, decode, weights_digest
from lisa_video.pose.keypoints import Keypoints

SHIPPED_KEYPOINT_NET = Path(__file__).parents[1] / "assets" / "keypoint_net"
"""Folder of the network that was trained on the demo data; its `training.json` says how, and how well it does."""

_BATCH = 64  # frames at a time, so that memory does not grow with the clip


class PoseDetector(ABC):
    """Finds people's poses in the frames of one clip."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the detector is, for protocols."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """`sha256:...` of its weights, for protocols."""

    @abstractmethod
    def detect(self, frames: UInt8[np.ndarray, "F H W 3"]) -> Keypoints:
        """RGB frames in [0, 255] of any size -> poses in pixels of these frames."""


class KeypointNetDetector(PoseDetector):
    """One person per frame, found by a `KeypointNet`; frames of other sizes are resized and poses mapped back.

    Args:
        net: a trained network.
        digest: identity of its weights.
        device: where to compute.
    """

    def __init__(self, net: KeypointNet, digest: str, device: str | torch.device = "cpu") -> None:
        self.net = net.eval().to(device)
        self._digest, self._device = digest, device

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> KeypointNetDetector:
        """Load the network that `KeypointNet.save_pretrained` wrote.

        Raises:
            UserError: a file is missing or does not fit.
        """
        return cls(KeypointNet.from_pretrained(folder), weights_digest(folder), device)

    @property
    def name(self) -> str:
        """See `PoseDetector`."""
        return f"KeypointNet {self.net.size} px, {self.net.num_joints} joints, one person"

    @property
    def digest(self) -> str:
        """See `PoseDetector`."""
        return self._digest

    @torch.inference_mode()
    def detect(self, frames: UInt8[np.ndarray, "F H W 3"]) -> Keypoints:
        """See `PoseDetector`; always exactly one person (P = 1)."""
        height, width = frames.shape[1:3]
        xy, score = [], []
        for start in range(0, len(frames), _BATCH):
            batch = network_input(frames[start : start + _BATCH], self.net.size, self._device)
            batch_xy, batch_score = decode(self.net(batch), (height, width))
            xy.append(batch_xy[:, None].cpu().numpy())
            score.append(batch_score[:, None].cpu().numpy())
        if not xy:
            raise ValueError("a clip without frames has no poses")
        return Keypoints(np.concatenate(xy), np.concatenate(score), np.zeros(1, np.int64))


def network_input(
    frames: UInt8[np.ndarray, "N H W 3"], size: int, device: str | torch.device = "cpu"
) -> Float[Tensor, "N 3 h w"]:
    """RGB frames in [0, 255] of any size -> (N, 3, size, size) in [-1, 1], what a `KeypointNet` wants."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2).float()
    pixels = pixels.div(127.5).sub(1.0)
    if pixels.shape[2:] != (size, size):
        pixels = functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    return pixels.contiguous(memory_format=torch.channels_last)
