"""`FrameMetric`: what a generated clip is worth beside the real one, frame for frame, as a few named numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor, from_numpy

CHUNK = 16
"""Frames that are turned into floating point at once, so that memory does not grow with the clip."""


@dataclass(frozen=True)
class Column:
    """One number of a metric.

    Attributes:
        key: of the number in files.
        label: of the number in tables, with its unit.
        better: which way is good; "neither" for what is only shown beside.
        digits: after the point.
    """

    key: str
    label: str
    better: Literal["higher", "lower", "neither"]
    digits: int = 3


class FrameMetric(ABC):
    """Compares the frames of one clip; the score of a set is the mean over clips."""

    columns: tuple[Column, ...]
    min_side = 1
    """Pixels that the shorter side of the frames must have."""

    @property
    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Everything that changes the numbers, as JSON values."""

    @abstractmethod
    def measure(self, real: UInt8[np.ndarray, "F H W 3"], generated: UInt8[np.ndarray, "F H W 3"]) -> dict[str, float]:
        """RGB clips of the same frames -> key of each column -> number; NaN where it is not defined."""


def unit_tensor(frames: UInt8[np.ndarray, "F H W 3"]) -> Float[Tensor, "F 3 H W"]:
    """RGB frames in [0, 255] -> [0, 1]."""
    return from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).float() / 255.0
