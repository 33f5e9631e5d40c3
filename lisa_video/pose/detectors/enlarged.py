"""Small frames are enlarged before detection: detectors that were made for photographs see little at 64 pixels."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from lisa_video.pose.detector import People, PoseDetector

_CHUNK = 16  # frames enlarged at a time


class EnlargedFrames(PoseDetector):
    """Another detector that is shown larger frames; the poses come back in pixels of the frames as they are.

    Args:
        detector: finds the poses; its limits of people and smoothing are taken over.
        min_side: frames whose shorter side has fewer pixels are enlarged to it (bicubic); larger ones stay.
    """

    def __init__(self, detector: PoseDetector, min_side: int) -> None:
        self._detector, self._min_side = detector, min_side
        self.max_people, self.smoothing = detector.max_people, detector.smoothing

    @property
    def name(self) -> str:
        """See `PoseDetector`; enlarging changes what is found, so it belongs to the name."""
        return f"{self._detector.name}, frames enlarged to {self._min_side} px at least (bicubic)"

    @property
    def digest(self) -> str:
        """See `PoseDetector`."""
        return self._detector.digest

    @property
    def skeleton(self) -> str:
        """See `PoseDetector`."""
        return self._detector.skeleton

    def find(self, frames: UInt8[np.ndarray, "F H W 3"]) -> list[People]:
        """See `PoseDetector`."""
        height, width = frames.shape[1:3]
        scale = self._min_side / min(height, width)
        if scale <= 1:
            return self._detector.find(frames)
        large = (round(width * scale), round(height * scale))
        shrink = np.array([width / large[0], height / large[1]], np.float32)
        people: list[People] = []
        for start in range(0, len(frames), _CHUNK):
            shown = [
                cv2.resize(frame, large, interpolation=cv2.INTER_CUBIC) for frame in frames[start : start + _CHUNK]
            ]
            for found in self._detector.find(np.stack(shown)):
                box = found.box.copy()
                box[:, :4] *= np.tile(shrink, 2)
                people.append(People(found.xy * shrink, found.score, box))
        return people
