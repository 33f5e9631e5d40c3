"""Reader of BVH motion files (joint hierarchy and channel values) with forward kinematics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation


@dataclass(frozen=True)
class Bvh:
    """A BVH file of J joints and T frames.

    Attributes:
        names: J joint names, parents before children.
        parents: J indices, -1 for the root.
        offsets: (J, 3) float, position in the parent, file units.
        channels: J lists of channel names, such as "Xposition" or "Zrotation".
        values: (T, C) float, all channels in order, degrees and file units.
        frame_time: seconds per frame.
    """

    names: list[str]
    parents: list[int]
    offsets: np.ndarray
    channels: list[list[str]]
    values: np.ndarray
    frame_time: float

    def forward_kinematics(self) -> tuple[np.ndarray, np.ndarray]:
        """World rotations (T, J, 3, 3) and positions (T, J, 3) in file units."""
        rotations: list[np.ndarray] = []
        positions: list[np.ndarray] = []
        column = 0
        for joint, parent in enumerate(self.parents):
            names = self.channels[joint]
            values = self.values[:, column : column + len(names)]
            column += len(names)
            turning = [index for index, name in enumerate(names) if name.endswith("rotation")]
            moving = [index for index, name in enumerate(names) if name.endswith("position")]
            order = "".join(names[index][0] for index in turning)
            local = Rotation.from_euler(order, values[:, turning], degrees=True).as_matrix()
            offset = np.tile(self.offsets[joint], (len(values), 1))
            if moving:
                offset = offset + values[:, moving]
            if parent < 0:
                rotations.append(local)
                positions.append(offset)
            else:
                rotations.append(rotations[parent] @ local)
                positions.append(positions[parent] + np.einsum("tij,tj->ti", rotations[parent], offset))
        return np.stack(rotations, axis=1), np.stack(positions, axis=1)


def load_bvh(path: Path) -> Bvh:
    """Read a BVH file."""
    hierarchy, _, motion = path.read_text().partition("MOTION")
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[list[str]] = []
    stack: list[int] = []
    current = -1  # the joint whose "{" comes next; None of the joints for an "End Site"
    end_site = -2
    for line in hierarchy.splitlines():
        words = line.split()
        match words[:1]:
            case ["ROOT" | "JOINT"]:
                names.append(words[1])
                parents.append(stack[-1] if stack else -1)
                offsets.append([0.0, 0.0, 0.0])
                channels.append([])
                current = len(names) - 1
            case ["End"]:
                current = end_site
            case ["{"]:
                stack.append(current)
            case ["}"]:
                stack.pop()
            case ["OFFSET"] if stack[-1] != end_site:
                offsets[stack[-1]] = [float(word) for word in words[1:4]]
            case ["CHANNELS"]:
                channels[stack[-1]] = words[2:]
    lines = motion.strip().splitlines()
    count, frame_time = int(lines[0].split(":")[1]), float(lines[1].split(":")[1])
    values = np.array([[float(word) for word in line.split()] for line in lines[2 : 2 + count]])
    return Bvh(names, parents, np.array(offsets), channels, values, frame_time)
