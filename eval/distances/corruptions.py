"""Six ways of spoiling a clip at four strengths, to see whether a score notices: it must rise with the strength.

After Unterthiner et al. 2018 (FVD), appendix, who spoil clips in space and in time. Draws depend on the clip's content
alone, and stronger versions contain the weaker ones: the same noise, larger; the same exchanged frames, and more.
"""

from __future__ import annotations

import zlib
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from eval.distances.features import FeatureExtractor
from lisa_video.errors import UserError

STRENGTHS: dict[str, tuple[float | int, ...]] = {
    "noise": (4, 12, 36, 108),
    "blur": (0.005, 0.01, 0.02, 0.04),
    "crop": (0.1, 0.25, 0.4, 0.55),
    "freeze": (0.25, 0.5, 0.75, 1.0),
    "shuffle": (2, 4, 8, 16),
    "swap": (1, 2, 4, 8),
}
"""Name of a corruption -> its strengths, weakest first."""
MEANINGS = {
    "noise": "normal noise, deviation in grey levels of 255",
    "blur": "Gaussian blur, deviation as a share of the shorter side",
    "crop": "share of each side cut off around the middle, the rest scaled up",
    "freeze": "share of the clip, from its end, that repeats the frame before it (1: the first frame alone)",
    "shuffle": "frames in random order within windows of so many frames",
    "swap": "random pairs of frames exchanged",
}


def corrupt(clip: UInt8[np.ndarray, "F H W 3"], kind: str, strength: float | int) -> UInt8[np.ndarray, "F H W 3"]:
    """A spoilt copy of an RGB clip in [0, 255], of the same shape.

    Args:
        clip: the frames.
        kind: one of `STRENGTHS`.
        strength: in the unit that `MEANINGS` names.

    Raises:
        UserError: no such corruption.
    """
    generator = np.random.default_rng(zlib.crc32(np.ascontiguousarray(clip).tobytes()))
    frames, (height, width) = len(clip), clip.shape[1:3]
    spoilt: np.ndarray
    match kind:
        case "noise":
            noise = generator.standard_normal(clip.shape, np.float32) * strength
            spoilt = np.clip(clip + noise, 0, 255).round().astype(np.uint8)
        case "blur":
            sigma = strength * min(height, width)
            spoilt = np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in clip])
        case "crop":
            top, left = round(height * strength / 2), round(width * strength / 2)
            inner = clip[:, top : height - top, left : width - left]
            spoilt = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in inner])
        case "freeze":
            last = max(0, frames - 1 - round(frames * strength))
            spoilt = clip[np.minimum(np.arange(frames), last)]
        case "shuffle":
            keys = generator.random(frames) + np.arange(frames) // int(strength)
            spoilt = clip[np.argsort(keys)]
        case "swap":
            order, pairs = np.arange(frames), generator.permutation(frames)[: frames // 2 * 2].reshape(-1, 2)
            for first, second in pairs[: int(strength)]:
                order[[first, second]] = second, first
            spoilt = clip[order]
        case _:
            raise UserError(f"no corruption {kind!r}", remedy=f"use one of {', '.join(STRENGTHS)}")
    return spoilt


class CorruptedFeatures(FeatureExtractor):
    """Features of spoilt clips; its protocol differs from the plain one, so the feature cache keeps them apart.

    Args:
        extractor: of the features.
        kind: see `corrupt`.
        strength: see `corrupt`.
    """

    def __init__(self, extractor: FeatureExtractor, kind: str, strength: float | int) -> None:
        self._extractor, self._kind, self._strength = extractor, kind, strength

    @property
    def name(self) -> str:
        """See `FeatureExtractor`."""
        return f"{self._extractor.name} of clips with {self._kind} {self._strength:g}"

    @property
    def digest(self) -> str:
        """See `FeatureExtractor`."""
        return self._extractor.digest

    @property
    def dimension(self) -> int:
        """See `FeatureExtractor`."""
        return self._extractor.dimension

    @property
    def protocol(self) -> dict[str, Any]:
        """See `FeatureExtractor`."""
        return {**self._extractor.protocol, "corruption": self._kind, "strength": self._strength}

    def check_length(self, frames: int) -> None:
        """See `FeatureExtractor`."""
        self._extractor.check_length(frames)

    def features(self, videos: UInt8[np.ndarray, "N F H W 3"]) -> Float[np.ndarray, "N D"]:
        """See `FeatureExtractor`."""
        return self._extractor.features(np.stack([corrupt(clip, self._kind, self._strength) for clip in videos]))
