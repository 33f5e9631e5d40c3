"""`FeatureExtractor`: clips -> one vector each, for the Frechet distance; and the demo's own extractor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from lisa_video.pose.keypoint_net import KeypointNet, network_input, weights_digest


class FeatureExtractor(ABC):
    """Turns clips into vectors whose distribution the Frechet distance compares."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the features are, for protocols."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """`sha256:...` of the weights, for protocols."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """D, numbers per clip."""

    @property
    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Everything that changes the features: weights, resizing, number range, pooling; JSON values."""

    def check_length(self, frames: int) -> None:  # noqa: B027 (most networks take any length)
        """Raise a `UserError` if the network does not take clips of so many frames; before anything is decoded."""

    @abstractmethod
    def features(self, videos: UInt8[np.ndarray, "N F H W 3"]) -> Float[np.ndarray, "N D"]:
        """RGB clips in [0, 255] -> (N, D) float64."""


class KeypointNetFeatures(FeatureExtractor):
    """What the demo's keypoint network sees, and how it changes from frame to frame. It is NOT I3D.

    Per clip: mean over frames of the pooled bottleneck (64 numbers), and mean over frames of the absolute difference
    to the frame before (64 numbers; 0 for a clip of one frame). Useful to compare arms on the demo data only.

    Args:
        net: a trained network.
        digest: identity of its weights.
        device: where to compute.
    """

    def __init__(self, net: KeypointNet, digest: str, device: str | torch.device = "cpu") -> None:
        self.net = net.eval().to(device)
        self._digest, self._device = digest, device

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> KeypointNetFeatures:
        """Load the network that `KeypointNet.save_pretrained` wrote.

        Raises:
            UserError: a file is missing or does not fit.
        """
        return cls(KeypointNet.from_pretrained(folder), weights_digest(folder), device)

    @property
    def name(self) -> str:
        """See `FeatureExtractor`."""
        return "demo keypoint-network features, not I3D"

    @property
    def digest(self) -> str:
        """See `FeatureExtractor`."""
        return self._digest

    @property
    def dimension(self) -> int:
        """See `FeatureExtractor`."""
        return 2 * self.net.feature_dim

    @property
    def protocol(self) -> dict[str, Any]:
        """See `FeatureExtractor`."""
        return {
            "name": self.name,
            "digest": self.digest,
            "dimension": self.dimension,
            "resize": f"bilinear with antialias to {self.net.size} x {self.net.size}",
            "range": "[-1, 1]",
            "pooling": "mean over frames, and mean absolute difference of neighbouring frames",
        }

    @torch.inference_mode()
    def features(self, videos: UInt8[np.ndarray, "N F H W 3"]) -> Float[np.ndarray, "N D"]:
        """See `FeatureExtractor`."""
        return np.stack([self._clip_features(video) for video in videos])

    def _clip_features(self, video: UInt8[np.ndarray, "F H W 3"]) -> Float[np.ndarray, " D"]:
        pooled = self.net.features(network_input(video, self.net.size, self._device)).double()
        if len(pooled) == 1:
            change = torch.zeros_like(pooled[0])
        else:
            change = pooled.diff(dim=0).abs().mean(dim=0)
        return torch.cat([pooled.mean(dim=0), change]).cpu().numpy()
