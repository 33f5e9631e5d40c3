"""Developer script: convert public motion capture into the one small file that the demo data needs.

The result, `data_tools/assets/motion.npz`, is kept in the repository, so nobody has to run this. To build it again:

    pip download --no-deps pybullet==3.2.7 -d DIR      # unzip pybullet_data/data/motions/*.txt of the wheel
    apt-get download assimp-testmodels                 # dpkg -x it; the takes are models/BVH/01_01.bvh and 01_03.bvh
    python -m data_tools.demo.import_motion --pybullet-wheel-data DIR --cmu-bvh 01_01.bvh 01_03.bvh \
        --out data_tools/assets/motion.npz

Both sources are turned into rotations of the SMPL-X skeleton (y up, facing +z, left is +x, rest pose is a T).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from data_tools.demo.bvh import load_bvh
from data_tools.demo.motion import BODY_JOINTS, PARENTS, Motion, Take, heading, save_motion_library

FPS = 30.0
"""Frames per second of the stored takes; resampled again when a clip is made."""

CMU_METRES = 0.0254 / 0.45
"""Metres per length unit of the CMU BVH files."""

CMU_BONES = {
    "Pelvis": "Hips", "L_Hip": "LeftUpLeg", "R_Hip": "RightUpLeg", "Spine1": "LowerBack", "L_Knee": "LeftLeg",
    "R_Knee": "RightLeg", "Spine2": "Spine", "L_Ankle": "LeftFoot", "R_Ankle": "RightFoot", "Spine3": "Spine1",
    "L_Foot": "LeftToeBase", "R_Foot": "RightToeBase", "Neck": "Neck", "L_Collar": "LeftShoulder",
    "R_Collar": "RightShoulder", "Head": "Head", "L_Shoulder": "LeftArm", "R_Shoulder": "RightArm",
    "L_Elbow": "LeftForeArm", "R_Elbow": "RightForeArm", "L_Wrist": "LeftHand", "R_Wrist": "RightHand",
}  # fmt: skip

CMU_RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "01_01": {"cmu_jumps_a": (0.3, 7.9), "cmu_jumps_b": (8.4, 16.0), "cmu_jumps_c": (16.5, 22.9)},
    "01_03": {
        "cmu_park_a": (0.1, 2.8), "cmu_park_climb_a": (3.3, 11.3), "cmu_park_b": (11.8, 19.8),
        "cmu_park_climb_b": (20.3, 27.0), "cmu_park_c": (27.5, 37.5),
    },
}  # fmt: skip
"""BVH file stem -> take name -> (first, last) second; the gaps keep neighbouring takes apart."""

DEEPMIMIC_COLUMNS = (
    ("chest", 4), ("neck", 4), ("right_hip", 4), ("right_knee", 1), ("right_ankle", 4), ("right_shoulder", 4),
    ("right_elbow", 1), ("left_hip", 4), ("left_knee", 1), ("left_ankle", 4), ("left_shoulder", 4), ("left_elbow", 1),
)  # fmt: skip
"""Joints of a DeepMimic frame after the root and how many numbers each has: a wxyz quaternion or an angle about z."""

LOOP_BEND = 10
"""Frames at the end of a looping clip over which it is bent back to its first pose."""

DEEPMIMIC_HIP_HEIGHT = 0.89
"""Metres from the floor to the root of the DeepMimic humanoid when it stands."""


def _local_rotations(world: dict[str, Rotation]) -> np.ndarray:
    """(T, 22, 3) axis-angle of each joint in its parent, from rotations relative to the rest pose in the world."""
    local = [world["Pelvis"].as_rotvec()]
    for joint, parent in zip(BODY_JOINTS, PARENTS, strict=True):
        local.append((world[parent].inv() * world[joint]).as_rotvec())
    return np.stack(local, axis=1)


def convert_cmu(path: Path) -> Iterator[Take]:
    """Takes of one BVH file of the CMU database, whose frame 0 is a T-pose: the rest pose of the target."""
    bvh = load_bvh(path)
    rotations, positions = bvh.forward_kinematics()
    bone = {name: index for index, name in enumerate(bvh.names)}
    world = {}
    for joint, source in CMU_BONES.items():
        turned = rotations[:, bone[source]]
        world[joint] = Rotation.from_matrix(turned @ turned[0].T)
    local = _local_rotations(world)
    pelvis = positions[:, bone["Hips"]] * CMU_METRES
    leg = positions[0, bone["Hips"]] - positions[0, [bone["LeftToeBase"], bone["RightToeBase"]]].mean(axis=0)
    step = round(1 / bvh.frame_time / FPS)
    for name, (first, last) in CMU_RANGES[path.stem].items():
        start, stop = max(1, round(first / bvh.frame_time)), min(len(pelvis), round(last / bvh.frame_time))
        motion = Motion(local[start:stop:step], pelvis[start:stop:step], float(leg[1] * CMU_METRES))
        yield Take(
            name, motion, 1 / bvh.frame_time / step, loop=False,
            source=f"CMU mocap {path.name}", licence="free for any use (mocap.cs.cmu.edu)",
        )  # fmt: skip


def convert_deepmimic(path: Path) -> Take:
    """One DeepMimic clip; its zero pose faces +x with the arms down."""
    clip = json.loads(path.read_text())
    frames = np.array(clip["Frames"])
    duration = frames[0, 0] * (len(frames) - 1)
    key = np.arange(len(frames)) * frames[0, 0]
    time = np.linspace(0, duration, round(duration * FPS) + 1)
    time[-1] = key[-1]

    def joint(column: int, width: int) -> Rotation:
        if width == 4:
            return Slerp(key, Rotation.from_quat(frames[:, column : column + 4], scalar_first=True))(time)
        return Rotation.from_rotvec(np.interp(time, key, frames[:, column])[:, None] * np.array([[0, 0, 1.0]]))

    local, column = {}, 8
    for name, width in DEEPMIMIC_COLUMNS:
        local[name] = joint(column, width)
        column += width
    rotations = _local_rotations(_deepmimic_world(joint(4, 4), local))
    loop = clip["Loop"] == "wrap"
    if loop:
        rotations = _close_loop(rotations)
    translation = np.stack([np.interp(time, key, frames[:, 1 + axis]) for axis in range(3)], axis=1)
    return Take(
        name=path.stem.removeprefix("humanoid3d_"),
        motion=Motion(rotations, translation, DEEPMIMIC_HIP_HEIGHT),
        fps=(len(time) - 1) / duration,
        loop=loop,
        source=f"DeepMimic {path.name} of pybullet_data 3.2.7",
        licence="zlib",
    )


def _close_loop(rotations: np.ndarray) -> np.ndarray:
    """Bend the end of (T, 22, 3) poses until the last one is the first one, apart from the heading.

    The published clips end a little before or after a full cycle; repeated, a limb would jump by up to 58 degrees.
    """
    first, last = Rotation.from_rotvec(rotations[0]), Rotation.from_rotvec(rotations[-1])
    yaw = heading(rotations[-1:, 0])[0] - heading(rotations[:1, 0])[0]
    target = Rotation.concatenate([Rotation.from_rotvec([0, yaw, 0]) * first[0], first[1:]])
    missing = (last.inv() * target).as_rotvec()
    bend = min(LOOP_BEND, len(rotations) // 2)
    closed = rotations.copy()
    for step in range(bend + 1):
        weight = (1 - np.cos(np.pi * step / bend)) / 2
        index = len(rotations) - 1 - bend + step
        closed[index] = (Rotation.from_rotvec(rotations[index]) * Rotation.from_rotvec(weight * missing)).as_rotvec()
    return closed


def _deepmimic_world(root: Rotation, local: dict[str, Rotation]) -> dict[str, Rotation]:
    """Rotations of the SMPL-X joints relative to their rest pose, in the world."""
    turn = Rotation.from_euler("y", 90, degrees=True)
    chest = root * local["chest"]
    half_neck = chest * Rotation.from_rotvec(local["neck"].as_rotvec() / 2)
    world = {
        "Pelvis": root * turn,
        "Spine1": root * Rotation.from_rotvec(local["chest"].as_rotvec() / 2) * turn,
        "Neck": half_neck * turn,
        "Head": chest * local["neck"] * turn,
    }
    for joint in ("Spine2", "Spine3", "L_Collar", "R_Collar"):
        world[joint] = chest * turn
    for side, letter, arms_down in (("left", "L", -90), ("right", "R", 90)):
        hip = root * local[f"{side}_hip"]
        knee = hip * local[f"{side}_knee"]
        shoulder = chest * local[f"{side}_shoulder"]
        arm_turn = Rotation.from_euler("x", arms_down, degrees=True) * turn
        world[f"{letter}_Hip"], world[f"{letter}_Knee"] = hip * turn, knee * turn
        world[f"{letter}_Ankle"] = world[f"{letter}_Foot"] = knee * local[f"{side}_ankle"] * turn
        world[f"{letter}_Shoulder"] = shoulder * arm_turn
        world[f"{letter}_Elbow"] = world[f"{letter}_Wrist"] = shoulder * local[f"{side}_elbow"] * arm_turn
    return world


def main() -> None:
    """Command line: read the sources and write the library."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pybullet-wheel-data", type=Path, required=True, help="folder with humanoid3d_*.txt inside")
    parser.add_argument("--cmu-bvh", type=Path, nargs="+", required=True, help="BVH files 01_01.bvh and 01_03.bvh")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    arguments = parser.parse_args()
    takes = [convert_deepmimic(path) for path in sorted(arguments.pybullet_wheel_data.rglob("humanoid3d_*.txt"))]
    for path in sorted(arguments.cmu_bvh):
        takes.extend(convert_cmu(path))
    save_motion_library(arguments.out, takes)
    print(f"{arguments.out}: {len(takes)} takes, {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
