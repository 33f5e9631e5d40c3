"""The demo's own detector: one person a frame, found by a `KeypointNet`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from lisa_video.config.detector import DetectorSettings
from lisa_video.pose.detector import People, PoseDetector
from lisa_video.pose.detectors.boxes import WholeFrame
from lisa_video.pose.detectors.devices import require_device
from lisa_video.pose.keypoint_net import KeypointNet, decode, network_input, weights_digest

SHIPPED_KEYPOINT_NET = Path(__file__).parents[2] / "assets" / "keypoint_net"
"""Folder of the network that was trained on the demo data; its `training.json` says how, and how well it does."""


class KeypointNetDetector(PoseDetector):
    """One person per frame, always; frames of other sizes are resized and poses mapped back.

    Args:
        net: a trained network.
        digest: identity of its weights.
        device: where to compute.
        batch_size: frames at a time, so that memory does not grow with the clip.
    """

    skeleton = "coco17"

    def __init__(self, net: KeypointNet, digest: str, device: str | torch.device = "cpu", batch_size: int = 64) -> None:
        self.net = net.eval().to(device)
        self._digest, self._device, self._batch_size = digest, device, batch_size

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str | torch.device = "cpu", batch_size: int = 64
    ) -> KeypointNetDetector:
        """Load the network that `KeypointNet.save_pretrained` wrote.

        Raises:
            UserError: a file is missing or does not fit.
        """
        return cls(KeypointNet.from_pretrained(folder), weights_digest(folder), device, batch_size)

    @classmethod
    def from_settings(cls, settings: DetectorSettings) -> KeypointNetDetector:
        """The network of `settings.checkpoint`, or the embedded one.

        Raises:
            UserError: no such network, or no such device here.
        """
        folder = settings.checkpoint or SHIPPED_KEYPOINT_NET
        return cls.from_pretrained(folder, require_device(settings.device), settings.batch_size)

    @property
    def name(self) -> str:
        """See `PoseDetector`."""
        return f"KeypointNet {self.net.size} px, {self.net.num_joints} joints, one person"

    @property
    def digest(self) -> str:
        """See `PoseDetector`."""
        return self._digest

    @torch.inference_mode()
    def find(self, frames: UInt8[np.ndarray, "F H W 3"]) -> list[People]:
        """See `PoseDetector`; always exactly one person, whose box is the frame."""
        height, width = frames.shape[1:3]
        people: list[People] = []
        for start in range(0, len(frames), self._batch_size):
            batch = frames[start : start + self._batch_size]
            found = decode(self.net(network_input(batch, self.net.size, self._device)), (height, width))
            xy, score = (values[:, None].cpu().numpy() for values in found)
            people += [People(*person) for person in zip(xy, score, WholeFrame().boxes(batch), strict=True)]
        return people
