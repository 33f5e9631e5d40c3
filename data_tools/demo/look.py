"""Looks: colours, clothes, body shape and scene, drawn from pools of ids that train and val do not share."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data_tools.demo.parts import Part

LOOKS = {"train": 4096, "val": 512}
"""Number of looks per split."""

_SPLIT_SEED = {"train": 1, "val": 2}
_SKIN = ((255, 224, 196), (241, 194, 160), (224, 172, 130), (198, 134, 94), (150, 96, 62), (105, 66, 44))
_HAIR = ((28, 22, 18), (60, 38, 22), (110, 70, 36), (170, 120, 60), (214, 180, 110), (120, 118, 116), (130, 52, 24))


@dataclass(frozen=True)
class Look:
    """Everything about a clip's appearance that is not motion or camera.

    Attributes:
        name: unique id, such as "train-0123".
        colors: (13, 3) float32 RGB in [0, 255], one per `Part`.
        shape: (10,) float32 SMPL-X shape coefficients.
        wall: (2, 3) RGB of the wall at the floor and above.
        floor: (2, 3) RGB of the two tones of the floor.
        texture_seed: seeds the texture of wall and floor.
        light: (3,) unit vector towards the light, in the world.
        ambient: share of the light that comes from everywhere, in [0, 1].
    """

    name: str
    colors: np.ndarray
    shape: np.ndarray
    wall: np.ndarray
    floor: np.ndarray
    texture_seed: int
    light: np.ndarray
    ambient: float


def _colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
    hsv = rng.random(), rng.uniform(*saturation), rng.uniform(*value)
    return np.array(colorsys.hsv_to_rgb(*hsv)) * 255


def _clothes(rng: np.random.Generator) -> np.ndarray:
    """(13, 3) colours by part."""
    skin = np.array(_SKIN[rng.integers(len(_SKIN))]) * rng.uniform(0.92, 1.04)
    shirt, trousers = _colour(rng, (0.25, 0.95), (0.35, 1.0)), _colour(rng, (0.1, 0.8), (0.15, 0.8))
    if rng.random() < 0.2:
        shirt = np.full(3, rng.choice([35.0, 235.0]))
    front = _colour(rng, (0.0, 0.6), (0.6, 1.0)) if rng.random() < 0.4 else shirt
    colors = np.zeros((len(Part), 3))
    colors[[Part.SKIN, Part.HAND]] = skin
    # Hair of about the skin's colour would look bald, and hide which way the head faces.
    hair = [color for color in _HAIR if np.abs(np.array(color) - skin).sum() > 150]
    colors[Part.HAIR] = hair[rng.integers(len(hair))]
    colors[Part.EYE] = (25, 20, 25)
    colors[Part.SHIRT], colors[Part.SHIRT_FRONT] = shirt, front
    sleeves = rng.choice(3, p=[0.15, 0.45, 0.4])
    colors[Part.UPPER_ARM] = shirt if sleeves >= 1 else skin
    colors[Part.FOREARM] = shirt if sleeves == 2 else skin
    legs = rng.choice(3, p=[0.15, 0.15, 0.7])
    colors[[Part.HIPS, Part.THIGH]] = trousers
    colors[Part.LOWER_THIGH] = trousers if legs >= 1 else skin
    colors[Part.SHIN] = trousers if legs == 2 else skin
    colors[Part.SHOE] = _colour(rng, (0.0, 0.8), (0.1, 0.95))
    return colors.clip(0, 255)


def make_look(split: Literal["train", "val"], number: int) -> Look:
    """Look `number` in [0, `LOOKS[split]`) of a split; a pure function of both."""
    rng = np.random.default_rng([_SPLIT_SEED[split], number, 7001])
    colors = _clothes(rng)
    shape = np.clip(rng.normal(0, 0.9, 10), -2, 2).astype(np.float32)
    wall = _colour(rng, (0.05, 0.55), (0.3, 0.95))
    floor = _colour(rng, (0.05, 0.45), (0.25, 0.75))
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.5)
    light = np.array([np.sin(azimuth), height, np.cos(azimuth)])
    return Look(
        name=f"{split}-{number:04d}",
        colors=colors.astype(np.float32),
        shape=shape,
        wall=np.stack([wall * rng.uniform(0.7, 0.95), np.minimum(wall * rng.uniform(1.0, 1.2), 255)]),
        floor=np.stack([floor, floor * rng.uniform(0.75, 0.93)]),
        texture_seed=int(rng.integers(2**31)),
        light=light / np.linalg.norm(light),
        ambient=float(rng.uniform(0.45, 0.65)),
    )
