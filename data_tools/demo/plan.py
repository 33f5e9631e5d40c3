"""What each clip shows: split, take, look and variations, as a pure function of seed and index."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from data_tools.demo.look import LOOKS
from data_tools.demo.motion import Motion, heading, motion_library, wobble
from lisa_video.data.manifest import Split

GENERATOR_VERSION = 1
"""Raise it whenever a change alters any pixel or keypoint of any clip."""

# How often each take is used. People who roll, crawl or stand on their hands are kept, but rare: a small model learns
# upright people first. A take and everything cut from it belongs to one split.
TAKES: dict[Split, dict[str, float]] = {
    "train": {
        "walk": 3.0, "run": 3.0, "dance_b": 4.0, "jump": 2.5, "spinkick": 2.0, "kick": 1.5, "spin": 1.5,
        "cmu_jumps_a": 3.5, "cmu_jumps_b": 3.5, "cmu_park_a": 2.0, "cmu_park_b": 5.0, "cmu_park_climb_a": 2.0,
        "cmu_park_climb_b": 2.0, "cartwheel": 0.5, "backflip": 0.3, "getup_faceup": 0.25, "getup_facedown": 0.25,
        "roll": 0.2, "crawl": 0.2,
    },
    "val": {"dance_a": 3.0, "punch": 2.0, "cmu_jumps_c": 3.0, "cmu_park_c": 4.0},
}  # fmt: skip
"""Split -> take -> weight."""

_SPEED = (0.75, 1.3)


@dataclass(frozen=True)
class ClipPlan:
    """One clip before it is rendered.

    Attributes:
        index: number of the clip.
        split: "train" or "val".
        take: name in the motion library.
        look: number of the look within its split.
        mirrored: True when left and right of the motion are swapped.
        start: seconds into the take.
        speed: playback speed, 1 is natural.
        seed: seeds everything else (joint movement, camera).
    """

    index: int
    split: Split
    take: str
    look: int
    mirrored: bool
    start: float
    speed: float
    seed: tuple[int, ...]

    @property
    def name(self) -> str:
        """Clip id, such as "clip-000012"."""
        return f"clip-{self.index:06d}"

    @property
    def look_name(self) -> str:
        """Id of the look, such as "train-0012"."""
        return f"{self.split}-{self.look:04d}"

    def motion(self, num_frames: int, fps: float, rng: np.random.Generator) -> tuple[Motion, float]:
        """The poses at `fps` and the direction (radians about y) in which the middle one faces."""
        times = self.start + np.arange(num_frames) / fps * self.speed
        motion = motion_library()[self.take].at(times)
        if self.mirrored:
            motion = motion.mirrored()
        motion = wobble(motion, num_frames / fps, rng)
        return motion, float(heading(motion.rotations[num_frames // 2 : num_frames // 2 + 1, 0])[0])


def split_of(index: int, val_fraction: float) -> Split:
    """Spread the val clips evenly over the indices, so that every long enough prefix has its share of them."""
    return "val" if math.floor((index + 1) * val_fraction) > math.floor(index * val_fraction) else "train"


def plan_clip(seed: int, index: int, num_frames: int, fps: float, val_fraction: float) -> ClipPlan:
    """Choose what clip `index` shows; the clips before and after it do not matter."""
    rng = np.random.default_rng([seed, index, 0])
    split = split_of(index, val_fraction)
    names, weights = list(TAKES[split]), np.array(list(TAKES[split].values()))
    name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    take = motion_library()[name]
    speed = float(rng.uniform(*_SPEED))
    # A looping take may start anywhere; another one early enough to play on to its end, if it is long enough.
    room = take.duration if take.loop else max(0.0, take.duration - (num_frames - 1) / fps * speed)
    return ClipPlan(
        index=index, split=split, take=name, look=int(rng.integers(LOOKS[split])), mirrored=bool(rng.random() < 0.5),
        start=float(rng.uniform(0, room)), speed=speed, seed=(seed, index, 1),
    )  # fmt: skip
