"""The scene behind the figure: a textured floor and a round wall, fixed in the world."""

from __future__ import annotations

import cv2
import numpy as np

from data_tools.demo.camera import Camera
from data_tools.demo.look import Look

_FLOOR_TEXELS, _FLOOR_METRES = 256, 10.0
_WALL_TEXELS, _WALL_HEIGHT = (96, 768), 4.0
_HAZE_METRES = 9.0  # floor detail fades over this distance: far away it would only flicker


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """(H, W) noise in about [-1, 1] that repeats at its right and lower edge, with `cells` blobs down and across."""
    small = rng.uniform(-1, 1, cells)
    tiled = np.pad(small, 2, mode="wrap").astype(np.float32)
    scale = np.array(shape) / cells
    padded = cv2.resize(tiled, None, fx=float(scale[1]), fy=float(scale[0]), interpolation=cv2.INTER_CUBIC)
    top, left = (2 * scale).round().astype(int)
    return padded[top : top + shape[0], left : left + shape[1]]


def _floor_texture(look: Look, rng: np.random.Generator) -> np.ndarray:
    """(N, N, 3) float32 RGB tile."""
    n = _FLOOR_TEXELS
    kind = rng.integers(3)
    mix = 0.5 + 0.5 * _smooth_noise(rng, (n, n), (8, 8))
    if kind:
        tiles = int(rng.choice([6, 8, 10]))
        row, column = np.arange(n)[:, None] * tiles // n, np.arange(n)[None] * tiles // n
        board = (row + column * (kind - 1)) % 2
        mix = 0.35 * mix + 0.65 * cv2.GaussianBlur(board.astype(np.float32) + np.zeros((n, n), np.float32), (5, 5), 0)
    return (look.floor[0] + mix[..., None] * (look.floor[1] - look.floor[0])).astype(np.float32)


def _wall_texture(look: Look, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) float32 RGB, row 0 at the floor, wrapping around the figure."""
    height, width = _WALL_TEXELS
    up = np.linspace(0, 1, height)[:, None, None]
    wall = look.wall[0] + up * (look.wall[1] - look.wall[0])
    wall = wall * (1 + rng.uniform(0.02, 0.12) * _smooth_noise(rng, (height, width), (3, 16))[..., None])
    wall = np.ascontiguousarray(wall.astype(np.float32))
    for _ in range(int(rng.integers(0, 22))):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        half = rng.integers(8, 34, 2)
        color = look.wall[1] * rng.uniform(0.45, 1.0) * rng.uniform(0.7, 1.15, 3)
        for shift in (-width, 0, width):
            corners = ((int(x - half[0] + shift), int(y - half[1])), (int(x + half[0] + shift), int(y + half[1])))
            cv2.rectangle(wall, *corners, tuple(color.clip(0, 255).tolist()), -1)
    wall = cv2.GaussianBlur(wall, (5, 5), 0)
    if rng.random() < 0.5:
        wall[:5] = wall[:5] * 0.6  # skirting board
    return wall.clip(0, 255)


def draw_background(look: Look, camera: Camera, centre: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw floor and wall for every frame.

    Args:
        look: colours and texture seed.
        camera: T frames.
        centre: (3,) metres, the middle of the round wall.
        size: pixels of the square picture.

    Returns:
        (T, size, size, 3) float32 RGB in [0, 255] and (T, size, size) float32 share of floor in each pixel.
    """
    rng = np.random.default_rng(look.texture_seed)
    floor_texture, wall_texture = _floor_texture(look, rng), _wall_texture(look, rng)
    radius = float(np.linalg.norm((camera.position - centre)[:, [0, 2]], axis=1).max()) + rng.uniform(0.5, 2.5)
    rays = camera.rays(size).astype(np.float32)
    start = (camera.position - centre).astype(np.float32)[:, None, None]
    x, z = rays[..., 0], rays[..., 2]
    a, b = x * x + z * z, start[..., 0] * x + start[..., 2] * z
    c = start[..., 0] ** 2 + start[..., 2] ** 2 - radius**2
    to_wall = (np.sqrt(np.maximum(b * b - a * c, 0)) - b) / a
    height = camera.position[:, 1].astype(np.float32)[:, None, None]
    down = np.minimum(rays[..., 1], -1e-4)
    to_floor = -height / down
    # The edge between floor and wall is a soft one, or it would crawl in stairs as the camera drifts.
    wall_y = height + to_wall * rays[..., 1]
    pixel = to_wall / (size * camera.focal.astype(np.float32)[:, None, None])
    floor_share = np.clip(0.5 - wall_y / (2 * pixel), 0, 1)

    angle = np.arctan2(start[..., 0] + to_wall * x, start[..., 2] + to_wall * z)
    wall = _sample(
        wall_texture,
        angle / (2 * np.pi) * _WALL_TEXELS[1],
        np.clip(wall_y / _WALL_HEIGHT, 0, 1) * (_WALL_TEXELS[0] - 1),
    )
    reach = np.minimum(to_floor, 2 * radius)
    texels = np.float32(_FLOOR_TEXELS / _FLOOR_METRES)
    floor = _sample(floor_texture, (start[..., 0] + reach * x) * texels, (start[..., 2] + reach * z) * texels)
    haze = (1 - np.exp(-reach / _HAZE_METRES))[..., None]
    floor = floor + haze * (floor_texture.mean(axis=(0, 1)) - floor)
    picture = wall + floor_share[..., None] * (floor - wall)
    return picture, floor_share


def _sample(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear look-up at (T, S, S) texel coordinates, wrapping around."""
    shape = (x.shape[0] * x.shape[1], x.shape[2])
    picture = cv2.remap(
        texture, x.reshape(shape).astype(np.float32), y.reshape(shape).astype(np.float32),
        cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP,
    )  # fmt: skip
    return picture.reshape(*x.shape, 3)
