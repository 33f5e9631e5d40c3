"""`PersonDetector`: finds where people are, for detectors that look at one person at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import UInt8


class PersonDetector(ABC):
    """Finds boxes of people; each frame for itself."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is, for protocols."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """`sha256:...` of its weights; empty without weights."""

    @abstractmethod
    def boxes(self, frames: UInt8[np.ndarray, "F H W 3"]) -> list[np.ndarray]:
        """RGB frames in [0, 255] -> for each frame (P, 5) float32, best first.

        A row holds left, top, right, bottom in pixels, (0, 0) at the outer corner of the top left pixel, and the
        score in [0, 1]. Boxes may reach beyond the frame. P may be 0.
        """


class WholeFrame(PersonDetector):
    """No search: one person, whose box is the frame."""

    name = "whole frame"
    digest = ""

    def boxes(self, frames: UInt8[np.ndarray, "F H W 3"]) -> list[np.ndarray]:
        """See `PersonDetector`."""
        height, width = frames.shape[1:3]
        return [np.array([[0, 0, width, height, 1]], np.float32) for _ in frames]
