"""Whether the generated person is the one of the reference picture: similarity of embeddings.

No network comes with this package. `IdentityEmbedder` is the hook for any of face or re-identification networks;
`OnnxEmbedder` runs one from an ONNX file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from eval.frame_metrics.metric import CHUNK, Column, FrameMetric
from lisa_video.pose.detectors.onnx_session import OnnxNetwork
from lisa_video.pose.detectors.weights import file_digest, weights_file


class IdentityEmbedder(ABC):
    """Turns pictures of a person into vectors whose direction says who it is."""

    @property
    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Weights, cropping, size and number range, as JSON values."""

    @abstractmethod
    def embed(self, frames: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N D"]:
        """RGB frames in [0, 255] -> one vector each, of any length; NaN where nobody is seen."""


class OnnxEmbedder(IdentityEmbedder):
    """A network from an ONNX file with one picture input (N, 3, h, w) and a first output (N, D).

    The whole frame is resized to the network's input; faces or people are not cropped.

    Args:
        path: the file.
        device: where to compute.
        mean: taken from RGB in [0, 255].
        std: by which the rest is divided; 127.5 and 127.5 give [-1, 1].

    Raises:
        UserError: onnxruntime is not installed, no such file, or not such a network.
    """

    def __init__(self, path: str | Path, device: str = "cpu", mean: float = 127.5, std: float = 127.5) -> None:
        file = weights_file(str(path), "--identity-model", ".onnx")
        self._digest, self._network = file_digest(file), OnnxNetwork(file, device)
        self._mean, self._std = mean, std

    @property
    def protocol(self) -> dict[str, Any]:
        """See `IdentityEmbedder`."""
        size = f"{self._network.width} x {self._network.height}"
        return {
            "digest": self._digest,
            "input": f"whole frame, bilinear to {size}, RGB (x - {self._mean:g}) / {self._std:g}",
        }

    def embed(self, frames: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N D"]:
        """See `IdentityEmbedder`."""
        size = (self._network.width, self._network.height)
        vectors = []
        for start in range(0, len(frames), CHUNK):
            shown = [cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in frames[start : start + CHUNK]]
            pixels = (np.stack(shown).astype(np.float32) - self._mean) / self._std
            vectors.append(self._network(pixels.transpose(0, 3, 1, 2))[0])
        return np.concatenate(vectors).reshape(len(frames), -1).astype(np.float64)


class IdentitySimilarity(FrameMetric):
    """Mean cosine of the generated frames' embeddings with that of the reference, beside that of the real frames.

    Args:
        embedder: the hook.
    """

    columns = (
        Column("identity", "Identity", "higher", 3),
        Column("identity_real", "of the real clip", "neither", 3),
    )

    def __init__(self, embedder: IdentityEmbedder) -> None:
        self._embedder = embedder

    @property
    def protocol(self) -> dict[str, Any]:
        """See `FrameMetric`."""
        return {"reference": "first real frame, not itself compared", **self._embedder.protocol}

    def measure(self, real: UInt8[np.ndarray, "F H W 3"], generated: UInt8[np.ndarray, "F H W 3"]) -> dict[str, float]:
        """See `FrameMetric`; NaN for a clip of one frame."""
        if len(real) < 2:
            return {column.key: float("nan") for column in self.columns}
        reference, *true = _directions(self._embedder.embed(real))
        made = _directions(self._embedder.embed(generated[1:]))
        cosines = {"identity": made @ reference, "identity_real": np.array(true) @ reference}
        return {
            key: float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
            for key, values in cosines.items()
        }


def _directions(vectors: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    directions: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return directions
