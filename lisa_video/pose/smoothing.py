"""One-euro filter over the joints' paths: less jitter where people stand, little lag where they move.

Casiez, Roussel, Vogel, "1 euro filter: a simple speed-based low-pass filter for noisy input in interactive systems",
CHI 2012. Speeds are divided by the person's size, so that the settings mean the same for near and far people.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from lisa_video.config.detector import SmoothingSettings
from lisa_video.pose.keypoints import Keypoints


def smooth(keypoints: Keypoints, fps: float, settings: SmoothingSettings) -> Keypoints:
    """Filter each joint of each person; it starts anew after a gap (NaN). Scores stay as they are.

    Args:
        keypoints: of one clip.
        fps: frames per second.
        settings: of the filter.
    """
    xy = keypoints.xy.astype(np.float64) / _sizes(keypoints.xy)[:, None, None]
    smoothed = np.empty_like(xy)
    value, speed = np.full(xy.shape[1:], np.nan), np.zeros(xy.shape[1:])
    for frame, measured in enumerate(xy):
        fresh = np.isnan(value)
        weight = _weight(settings.derivative_cutoff_hz, fps)
        speed = np.where(fresh, 0.0, speed + weight * ((measured - value) * fps - speed))
        magnitude = np.linalg.norm(speed, axis=-1, keepdims=True)  # of the joint: both axes are filtered alike
        weight = _weight(settings.min_cutoff_hz + settings.beta * magnitude, fps)
        value = np.where(fresh, measured, value + weight * (measured - value))
        smoothed[frame] = value
    smoothed *= _sizes(keypoints.xy)[:, None, None]
    return Keypoints(smoothed.astype(np.float32), keypoints.score, keypoints.track_id, keypoints.skeleton)


def _weight(cutoff_hz: Float[np.ndarray, ...] | float, fps: float) -> np.ndarray:
    """Of the new value in exponential smoothing with a cut-off frequency."""
    return np.asarray(1 / (1 + fps / (2 * np.pi * cutoff_hz)))


def _sizes(xy: Float[np.ndarray, "F P K 2"]) -> Float[np.ndarray, " P"]:
    """Pixels: for each person the diagonal of the box of the known joints, median over the frames; 1 without joints."""
    known = np.isfinite(xy)
    extent = np.where(known, xy, -np.inf).max(axis=2) - np.where(known, xy, np.inf).min(axis=2)  # (F,P,2)
    sizes = [np.median(diagonal[diagonal > 0]) if (diagonal > 0).any() else 1.0 for diagonal in np.hypot(*extent.T)]
    return np.array(sizes)
