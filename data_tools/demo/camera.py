"""A pinhole camera that loosely follows the figure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from data_tools.demo.body import PosedBody

FRAME_MARGIN = 0.485
"""The figure is fitted into this half-width around the middle of the frame (in frame sizes)."""

NEAREST = 0.2
"""Metres; nothing is projected from closer to the camera."""


@dataclass(frozen=True)
class Camera:
    """A camera over T frames; the picture is square.

    Attributes:
        position: (T, 3) float64, metres.
        axes: (T, 3, 3) float64, rows: right, up and forward directions in the world.
        focal: (T,) float64, focal length in frame sizes.
    """

    position: np.ndarray
    axes: np.ndarray
    focal: np.ndarray

    def project(self, points: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
        """Project (T, N, 3) points in metres into a picture of `size` pixels.

        Returns:
            (T, N, 2) pixels, (0, 0) at the outer corner of the top left pixel, and (T, N) depth in metres.
        """
        seen = np.einsum("tij,tnj->tni", self.axes, points - self.position[:, None])
        depth = seen[..., 2]
        # Points beside or behind the camera (the far end of a shadow) stay outside the frame, on their own side.
        scale = self.focal[:, None] / np.maximum(depth, NEAREST)
        return size * np.stack([0.5 + scale * seen[..., 0], 0.5 - scale * seen[..., 1]], axis=-1), depth

    def rays(self, size: int) -> np.ndarray:
        """(T, size, size, 3) direction through the middle of each pixel; its part along the view axis is 1."""
        step = (np.arange(size) + 0.5) / size - 0.5
        across = step[None, :] / self.focal[:, None]
        right, up, forward = self.axes[:, 0], self.axes[:, 1], self.axes[:, 2]
        sideways = across[:, None, :, None] * right[:, None, None]
        upwards = -across[:, :, None, None] * up[:, None, None]
        return forward[:, None, None] + sideways + upwards


def look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(T, 3, 3) level camera axes at (T, 3) positions that look at (T, 3) targets."""
    forward = target - position
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(right, forward), forward], axis=1)


def following_camera(body: PosedBody, facing: float, rng: np.random.Generator) -> Camera:
    """Draw a camera: any side of the figure, more often its front, drifting slowly, the whole figure in the frame.

    Args:
        body: the figure over T frames.
        facing: its heading in radians about y; 0 faces +z.
        rng: source of the choice.
    """
    frames = len(body.keypoints)
    ramp = np.linspace(-0.5, 0.5, frames)[:, None]
    low, high = body.vertices.min(axis=1), body.vertices.max(axis=1)
    middle = ((low + high) / 2).astype(np.float64)
    followed = gaussian_filter1d(middle, sigma=3.0, axis=0, mode="nearest")
    # Up and down the camera lags more, so that a jump is seen as a jump.
    followed[:, 1] = 0.4 * followed[:, 1] + 0.6 * middle[:, 1].mean()
    target = followed + rng.normal(0, 0.03, 3) + ramp * rng.normal(0, 0.07, 3)

    side = rng.normal(0, np.radians(50)) if rng.random() < 0.65 else rng.uniform(-np.pi, np.pi)
    azimuth = facing + side + ramp[:, 0] * rng.normal(0, np.radians(7))
    elevation = np.radians(rng.uniform(-1, 14)) + 0 * azimuth
    share = rng.uniform(0.74, 0.90)
    half_view = np.radians(rng.uniform(28, 42)) / 2
    distance = body.height / (2 * np.tan(half_view) * share)
    toward = np.stack(
        [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)], axis=1
    )
    position = target + distance * toward
    position[:, 1] = np.maximum(position[:, 1], 0.15)
    zoom = 1 + ramp[:, 0] * rng.normal(0, 0.05)
    camera = Camera(position, look_at(position, target), zoom / (2 * np.tan(half_view)))
    if rng.random() < 0.92:
        return _fitted(camera, body)
    return camera


def _fitted(camera: Camera, body: PosedBody) -> Camera:
    """Zoom out as far as it takes to keep the figure inside the frame, but not more than 1.6-fold."""
    xy, _ = camera.project(body.vertices[:, ::4].astype(np.float64), 1.0)
    reach = float(np.abs(xy - 0.5).max())
    return Camera(camera.position, camera.axes, camera.focal * np.clip(FRAME_MARGIN / reach, 1 / 1.6, 1.0))
