"""Evidence of burned-in text and logos without a text detector: what the picture's motion does not explain.

Text is a dense clump of strong edges in both directions. It gives itself away in two ways:

- `fixed`: the clump stays put while the strong edges around it move (subtitles and logos under a moving camera);
- `sudden`: a clump of edges comes or goes from one frame to the next, still before and still after, while the rest
  goes on as it was (subtitles that change, also under a still camera).

What neither shows: a still logo under a still camera. It is a part of the background there, which the reference
picture shows to the model; only reading letters could tell it from a poster on the wall.
"""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np
from jaxtyping import Float

FIXED_LAG = 8
"""Frames over which a fixed clump has to stay: long enough for the picture to move on, short against a subtitle."""
SUDDEN_LAG = 6
"""Frames for which a place has to be still before and after a sudden change."""

_STRONG = 12.0  # luma per pixel: a strong edge
_SAME = 0.35  # an edge is the same if its gradient differs by less than this share
_OTHER = 0.6  # and another one if it differs by more
_WINDOW = (0.10, 0.05)  # width and height of the window that measures density, shares of the picture's width
_DENSE = 0.12  # share of the window with strong edges in the rarer one of both directions: a clump
_MAX_CLUMP = 0.25  # share of the picture; more is no text
_REST = 0.3  # share of the other strong edges that do the same: from here on the picture as a whole explains it
_MIN_EDGES = 20  # pixels; fewer other edges than this say little
_FULL_DENSITY = 0.5  # the highest density there is: half of the window in each direction


class BurnedInText:
    """Measures frame by frame; memory holds the last 13 gradient maps."""

    def __init__(self) -> None:
        self._gradients: deque[np.ndarray] = deque(maxlen=2 * SUDDEN_LAG + 1)
        self._fixed: list[float] = []
        self._sudden: list[float] = []

    def update(self, luma: Float[np.ndarray, "h w"]) -> None:
        """Take the next frame, brightness in [0, 255]."""
        past = self._gradients
        past.append(np.stack([cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1)]) / 4)
        if len(past) > FIXED_LAG:
            self._fixed.append(_fixed(past[-1 - FIXED_LAG], past[-1 - FIXED_LAG // 2], past[-1]))
        else:
            self._fixed.append(np.nan)
        self._sudden.append(np.nan)
        if len(past) == 2 * SUDDEN_LAG + 1:
            self._sudden[-1 - SUDDEN_LAG] = _sudden(past[0], past[SUDDEN_LAG - 1], past[SUDDEN_LAG], past[-1])

    def result(self) -> tuple[Float[np.ndarray, " F"], Float[np.ndarray, " F"]]:
        """Evidence in [0, 1] for each frame, fixed and sudden; NaN where too few frames lie before or behind."""
        return np.array(self._fixed, np.float32), np.array(self._sudden, np.float32)


def _fixed(first: np.ndarray, middle: np.ndarray, last: np.ndarray) -> float:
    size = _length(last)
    strong = size > _STRONG
    stays = strong & (np.maximum(_length(last - first), _length(last - middle)) < _SAME * size)
    return _evidence(stays, strong, last)


def _sudden(long_before: np.ndarray, before: np.ndarray, after: np.ndarray, long_after: np.ndarray) -> float:
    """Evidence that something came or went between `before` and `after`."""
    size_before, size_after = _length(before), _length(after)
    size = np.maximum(size_before, size_after)
    strong = size > _STRONG
    still = np.maximum(_length(before - long_before), _length(long_after - after)) < _SAME * size
    switches = strong & still & (_length(after - before) > _OTHER * size)
    return _evidence(switches, strong, np.where(size_after > size_before, after, before))


def _evidence(marked: np.ndarray, strong: np.ndarray, gradient: np.ndarray) -> float:
    """Density of the densest clump of marked edges, less as more of the edges outside of it are marked too."""
    width = marked.shape[1]
    window = (max(3, int(_WINDOW[0] * width)), max(3, int(_WINDOW[1] * width)))
    upright = np.abs(gradient[0]) > np.abs(gradient[1])
    # Lines have edges in one direction, letters in both: the rarer one counts.
    density = np.minimum(*(cv2.blur((marked & part).astype(np.float32), window) for part in (upright, ~upright)))
    _, labels = cv2.connectedComponents((density > _DENSE).astype(np.uint8))
    place = np.unravel_index(int(density.argmax()), density.shape)
    if labels[place] == 0:
        return 0.0
    clump = cv2.dilate((labels == labels[place]).astype(np.uint8), np.ones(window[::-1], np.uint8)) > 0
    if clump.mean() > _MAX_CLUMP:
        return 0.0
    others = ~clump.any(axis=1)  # rows; a line of text goes on beside its densest clump
    rest = marked[others].sum() / max(int(strong[others].sum()), _MIN_EDGES)
    return float(min(1.0, density[place] / _FULL_DENSITY) * max(0.0, 1 - rest / _REST))


def _length(gradient: np.ndarray) -> np.ndarray:
    return np.hypot(gradient[0], gradient[1])
