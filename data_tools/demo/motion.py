"""The motion library: takes of real motion capture, and segments sampled from them with variations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

BODY_JOINTS = (
    "L_Hip", "R_Hip", "Spine1", "L_Knee", "R_Knee", "Spine2", "L_Ankle", "R_Ankle", "Spine3", "L_Foot", "R_Foot",
    "Neck", "L_Collar", "R_Collar", "Head", "L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist", "R_Wrist",
)  # fmt: skip
"""The 21 body joints of SMPL-X in its order; a pose has the pelvis before them."""

PARENTS = (
    "Pelvis", "Pelvis", "Pelvis", "L_Hip", "R_Hip", "Spine1", "L_Knee", "R_Knee", "Spine2", "L_Ankle", "R_Ankle",
    "Spine3", "Spine3", "Spine3", "Neck", "L_Collar", "R_Collar", "L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow",
)  # fmt: skip
"""Parent of each body joint."""

MOTION_FILE = Path(__file__).parents[1] / "assets" / "motion.npz"

_POSE_JOINTS = ("Pelvis", *BODY_JOINTS)
_SWAP = np.array(
    [
        _POSE_JOINTS.index({"L": "R", "R": "L"}.get(name[0], name[0]) + name[1:] if name[1] == "_" else name)
        for name in _POSE_JOINTS
    ]
)
_REFLECT_TURN = np.array([1.0, -1.0, -1.0])
_REFLECT_POINT = np.array([-1.0, 1.0, 1.0])

# Radians of slow random movement, per joint group: enough that no two clips of a take are the same, too little to
# lift a planted foot visibly off the floor.
_WOBBLE = {"Shoulder": 0.12, "Elbow": 0.14, "Wrist": 0.15, "Head": 0.10, "Neck": 0.06, "Spine": 0.04, "Collar": 0.03}
_LEG_WOBBLE = 0.025


@dataclass(frozen=True)
class Motion:
    """Poses of one figure over T frames.

    Attributes:
        rotations: (T, 22, 3) float64, axis-angle in radians: pelvis in the world, then 21 joints in their parents.
        translation: (T, 3) float64, metres, the pelvis; y is up.
        hip_height: metres from floor to pelvis of the actor standing; scales the translation to another body.
    """

    rotations: np.ndarray
    translation: np.ndarray
    hip_height: float

    def mirrored(self) -> Motion:
        """The motion seen in the mirror plane x = 0: left and right change places."""
        return Motion(self.rotations[:, _SWAP] * _REFLECT_TURN, self.translation * _REFLECT_POINT, self.hip_height)


@dataclass(frozen=True)
class Take:
    """One take of the library: a motion with its frame rate and provenance.

    Attributes:
        name: unique name.
        motion: the poses.
        fps: frames per second.
        loop: True when the last pose is the first one again, so that the take can go on for ever.
        source: file that the take was converted from.
        licence: terms of that file.
    """

    name: str
    motion: Motion
    fps: float
    loop: bool
    source: str
    licence: str

    @property
    def duration(self) -> float:
        """Seconds."""
        return (len(self.motion.translation) - 1) / self.fps

    def at(self, times: np.ndarray) -> Motion:
        """Poses at (T,) times in seconds.

        A looping take goes on beyond its end, walking further and turning on; another one plays backwards there.
        """
        rotations, translation = self.motion.rotations, self.motion.translation
        lap = np.floor(times / self.duration)
        phase = times - lap * self.duration
        if not self.loop:
            phase = np.where(lap % 2 == 1, self.duration - phase, phase)
        position = np.clip(phase * self.fps, 0, len(translation) - 1 - 1e-9)
        left = position.astype(int)
        weight = (position - left)[:, None]
        place = translation[left] * (1 - weight) + translation[left + 1] * weight
        turn = _interpolate(rotations[left], rotations[left + 1], weight[:, None])
        if self.loop:
            turn, place = self._continued(turn, place, lap.astype(int))
        return Motion(turn, place, self.motion.hip_height)

    def _continued(self, turn: np.ndarray, place: np.ndarray, lap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Join lap after lap: each starts where and in the direction in which the last one ended."""
        rotations, translation = self.motion.rotations, self.motion.translation
        step_yaw = heading(rotations[-1:, 0])[0] - heading(rotations[:1, 0])[0]
        shift = (translation[-1] - _about_y(step_yaw).apply(translation[0])) * [1, 0, 1]
        turn, place = turn.copy(), place.copy()
        for index in range(len(lap)):
            for _ in range(lap[index]):
                place[index] = _about_y(step_yaw).apply(place[index]) + shift
            yaw = _about_y(step_yaw * lap[index])
            turn[index, 0] = (yaw * Rotation.from_rotvec(turn[index, 0])).as_rotvec()
        return turn, place


def _about_y(angle: float) -> Rotation:
    return Rotation.from_rotvec([0.0, angle, 0.0])


def heading(pelvis: np.ndarray) -> np.ndarray:
    """(T,) direction in which (T, 3) pelvis rotations face, radians about y; 0 faces +z."""
    forward = Rotation.from_rotvec(pelvis).apply([0.0, 0.0, 1.0])
    return np.arctan2(forward[:, 0], forward[:, 2])


def _interpolate(start: np.ndarray, end: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Shortest-way interpolation of (T, J, 3) axis-angle rotations with (T, 1, 1) weights."""
    shape = start.shape
    first = Rotation.from_rotvec(start.reshape(-1, 3))
    change = (first.inv() * Rotation.from_rotvec(end.reshape(-1, 3))).as_rotvec().reshape(shape) * weight
    return (first * Rotation.from_rotvec(change.reshape(-1, 3))).as_rotvec().reshape(shape)


def wobble(motion: Motion, seconds: float, rng: np.random.Generator) -> Motion:
    """Add slow random joint movement and a small constant change of style.

    Args:
        motion: the motion to vary.
        seconds: its duration.
        rng: source of the variation.
    """
    time = np.linspace(0, seconds, len(motion.translation))[:, None, None]
    size = np.full((1, len(_POSE_JOINTS), 1), _LEG_WOBBLE)
    for index, name in enumerate(_POSE_JOINTS):
        for part, radians in _WOBBLE.items():
            if part in name:
                size[0, index] = radians
    shape = (2, 1, len(_POSE_JOINTS), 3)
    rate, phase = rng.uniform(0.2, 1.0, shape), rng.uniform(0, 2 * np.pi, shape)
    waves = np.sin(2 * np.pi * rate * time + phase).sum(axis=0) / 2
    change = size * (waves + rng.normal(0, 0.5, shape[1:]))
    change[:, 0] = 0
    changed = Rotation.from_rotvec(motion.rotations.reshape(-1, 3)) * Rotation.from_rotvec(change.reshape(-1, 3))
    return Motion(changed.as_rotvec().reshape(motion.rotations.shape), motion.translation, motion.hip_height)


def save_motion_library(path: Path, takes: Sequence[Take]) -> None:
    """Write takes to one compressed file; rotations in half precision (1e-3 radians)."""
    np.savez_compressed(
        path,
        rotations=np.concatenate([take.motion.rotations for take in takes]).astype(np.float16),
        translation=np.concatenate([take.motion.translation for take in takes]).astype(np.float32),
        length=np.array([len(take.motion.translation) for take in takes]),
        fps=np.array([take.fps for take in takes]),
        loop=np.array([take.loop for take in takes]),
        hip_height=np.array([take.motion.hip_height for take in takes]),
        name=np.array([take.name for take in takes]),
        source=np.array([take.source for take in takes]),
        licence=np.array([take.licence for take in takes]),
    )


@lru_cache(maxsize=1)
def motion_library() -> dict[str, Take]:
    """All takes by name."""
    with np.load(MOTION_FILE, allow_pickle=False) as file:
        data = {key: file[key] for key in file.files}
    ends = np.cumsum(data["length"])
    takes = {}
    for index, end in enumerate(ends):
        rows = slice(end - data["length"][index], end)
        motion = Motion(
            data["rotations"][rows].astype(np.float64),
            data["translation"][rows].astype(np.float64),
            float(data["hip_height"][index]),
        )
        name, source, licence = (str(data[key][index]) for key in ("name", "source", "licence"))
        takes[name] = Take(name, motion, float(data["fps"][index]), bool(data["loop"][index]), source, licence)
    return takes
