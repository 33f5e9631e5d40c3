"""The motion library, mirroring, looping and variation of takes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_tools.demo.motion import BODY_JOINTS, PARENTS, Motion, heading, motion_library, wobble
from data_tools.demo.plan import TAKES

_JOINTS = ("Pelvis", *BODY_JOINTS)


def _world_rotations(motion: Motion) -> dict[str, np.ndarray]:
    world = {"Pelvis": Rotation.from_rotvec(motion.rotations[:, 0])}
    for index, (joint, parent) in enumerate(zip(BODY_JOINTS, PARENTS, strict=True), start=1):
        world[joint] = world[parent] * Rotation.from_rotvec(motion.rotations[:, index])
    return {name: rotation.as_matrix() for name, rotation in world.items()}


def test_library_holds_exactly_the_planned_takes():
    planned = [name for takes in TAKES.values() for name in takes]
    assert len(planned) == len(set(planned)), "a take is in two splits"
    assert set(planned) == set(motion_library())


@pytest.mark.parametrize("name", sorted(motion_library()))
def test_takes_are_sound(name):
    take = motion_library()[name]
    rotations, translation = take.motion.rotations, take.motion.translation
    assert rotations.shape == (len(translation), 22, 3)
    assert np.isfinite(rotations).all() and np.isfinite(translation).all()
    assert 29 < take.fps < 31 and take.duration > 0.7
    assert 0.8 < take.motion.hip_height < 1.1
    assert take.licence in ("zlib", "free for any use (mocap.cs.cmu.edu)")
    if take.loop:
        closed = Rotation.from_rotvec(rotations[0, 1:]).inv() * Rotation.from_rotvec(rotations[-1, 1:])
        assert closed.magnitude().max() < 0.01


def test_mirroring_reflects_every_joint_in_the_world():
    motion = motion_library()["punch"].at(np.linspace(0, 2, 7))
    plain, mirrored = _world_rotations(motion), _world_rotations(motion.mirrored())
    flip = np.diag([-1.0, 1.0, 1.0])
    for name in _JOINTS:
        other = name.replace("L_", "R_") if name.startswith("L_") else name.replace("R_", "L_")
        np.testing.assert_allclose(mirrored[other], flip @ plain[name] @ flip, atol=1e-9)
    np.testing.assert_allclose(motion.mirrored().translation, motion.translation * [-1, 1, 1])
    np.testing.assert_array_equal(motion.mirrored().mirrored().rotations, motion.rotations)


@pytest.mark.parametrize("name", ["walk", "dance_a", "spin"])
def test_looping_take_goes_on_without_a_jump(name):
    take = motion_library()[name]
    end = take.duration
    times = np.array([end - 2e-4, end - 1e-4, end + 1e-4, 2 * end - 1e-4, 2 * end + 1e-4])
    motion = take.at(times)
    turn = [Rotation.from_rotvec(pose) for pose in motion.rotations]
    for before, after in ((1, 2), (3, 4)):
        assert (turn[before].inv() * turn[after]).magnitude().max() < 0.02
        np.testing.assert_allclose(motion.translation[before], motion.translation[after], atol=0.02)


def test_looping_walk_keeps_walking_the_way_it_faces():
    take = motion_library()["walk"]
    motion = take.at(0.1 + np.arange(12) * take.duration)
    steps = np.diff(motion.translation[:, [0, 2]], axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 1.24, atol=0.05)
    facing = heading(motion.rotations[:-1, 0])
    ahead = np.stack([np.sin(facing), np.cos(facing)], axis=1)
    assert ((steps * ahead).sum(axis=1) > 1.1).all()


def test_take_without_loop_turns_back_at_its_end():
    take = motion_library()["kick"]
    motion = take.at(np.array([take.duration - 0.2, take.duration + 0.2]))
    np.testing.assert_allclose(motion.rotations[0], motion.rotations[1], atol=1e-6)
    np.testing.assert_allclose(motion.translation[0], motion.translation[1], atol=1e-6)


def test_wobble_is_small_smooth_and_reproducible():
    motion = motion_library()["walk"].at(np.arange(64) / 48)
    varied = wobble(motion, 64 / 48, np.random.default_rng(3))
    np.testing.assert_array_equal(varied.rotations, wobble(motion, 64 / 48, np.random.default_rng(3)).rotations)
    shape = motion.rotations.shape
    plain = Rotation.from_rotvec(motion.rotations.reshape(-1, 3))
    change = (plain.inv() * Rotation.from_rotvec(varied.rotations.reshape(-1, 3))).as_rotvec().reshape(shape)
    size = np.linalg.norm(change, axis=2)
    assert (size[:, 0] < 1e-6).all(), "the pelvis must not move, or the feet would slide"
    assert 0.01 < size[:, 1:].mean() and size.max() < 0.8
    assert np.abs(np.diff(change, axis=0)).max() < 0.05
    np.testing.assert_array_equal(varied.translation, motion.translation)
