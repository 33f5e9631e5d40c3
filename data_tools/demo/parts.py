"""Parts of the figure that get a colour each, and the landmarks and eyes of its face."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np


class Part(IntEnum):
    """Label of a face of the mesh; a look gives each one a colour."""

    SKIN = 0
    HAIR = 1
    EYE = 2
    SHIRT = 3
    SHIRT_FRONT = 4
    UPPER_ARM = 5
    FOREARM = 6
    HAND = 7
    HIPS = 8
    THIGH = 9
    LOWER_THIGH = 10
    SHIN = 11
    SHOE = 12


def face_landmarks(head: np.ndarray) -> np.ndarray:
    """(5, 3) nose, left eye, right eye, left ear, right ear on the surface of the resting head's (N, 3) vertices.

    The nose is the front-most vertex. Eyes and ears have fixed places relative to it and to the box of the head.
    """
    low, high = head.min(axis=0), head.max(axis=0)
    middle, size = (low + high) / 2, high - low
    nose = head[head[:, 2].argmax()]
    eye = np.array([0.21 * size[0], nose[1] + 0.13 * size[1], nose[2] - 0.125 * size[2]])
    ear = np.array([0.47 * size[0], nose[1] + 0.08 * size[1], middle[2] - 0.05 * size[2]])
    offset = np.array([middle[0], 0.0, 0.0])
    flip = np.array([-1.0, 1.0, 1.0])
    return np.stack([[middle[0], *nose[1:]], offset + eye, offset + eye * flip, offset + ear, offset + ear * flip])


def eye_patches(eyes: np.ndarray, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Two dark hexagons in front of the (2, 3) eyes: 12 vertices and 8 faces."""
    angle = np.arange(6) * np.pi / 3
    ring = np.stack([np.cos(angle), 0.8 * np.sin(angle), 0 * angle], axis=1) * 0.008 * height
    ring[:, 2] = 0.004
    fan = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]])
    return np.concatenate([eyes[0] + ring, eyes[1] + ring]), np.concatenate([fan, fan + 6])


def label_parts(
    vertices: np.ndarray, faces: np.ndarray, carrier: np.ndarray, joints: np.ndarray, names: Sequence[str],
    landmarks: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Label the faces of the resting body.

    Args:
        vertices: (V, 3) metres.
        faces: (F, 3) int.
        carrier: (V,) int, joint that carries the vertex.
        joints: (J, 3) metres.
        names: J SMPL-X joint names.
        landmarks: (5, 3) metres, of `face_landmarks`.

    Returns:
        (F,) `Part` of each face.
    """
    corners = vertices[faces]
    centre = corners.mean(axis=1)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    owner = np.array(names)[carrier]
    face_owner = owner[faces[:, 0]]
    part = np.full(len(centre), Part.SHIRT)
    by_joint = {
        "Pelvis": Part.HIPS, "Hip": Part.THIGH, "Knee": Part.SHIN, "Ankle": Part.SHOE, "Foot": Part.SHOE,
        "Neck": Part.SKIN, "Head": Part.SKIN, "Shoulder": Part.UPPER_ARM, "Elbow": Part.FOREARM, "Wrist": Part.HAND,
    }  # fmt: skip
    for name, label in by_joint.items():
        part[np.char.find(face_owner, name) >= 0] = label
    where = {name: joints[index] for index, name in enumerate(names)}
    knee, hip = where["L_Knee"][1], where["L_Hip"][1]
    part[(part == Part.THIGH) & (centre[:, 1] < knee + 0.3 * (hip - knee))] = Part.LOWER_THIGH
    part[(part == Part.SHIN) & (centre[:, 1] > knee)] = Part.LOWER_THIGH
    # One straight waist for pieces of pelvis and belly, which overlap there.
    waist = where["Pelvis"][1] + 0.4 * (where["Spine2"][1] - where["Pelvis"][1])
    trunk = (part == Part.SHIRT) | (part == Part.HIPS)
    part[trunk] = np.where(centre[trunk, 1] < waist, Part.HIPS, Part.SHIRT)
    front = (part == Part.SHIRT) & (normal[:, 2] > 0.3) & (np.abs(centre[:, 0]) < 0.075)
    part[front] = Part.SHIRT_FRONT
    nose, eye, ear = landmarks[0], landmarks[1], landmarks[3]
    top = vertices[owner == "Head", 1].max()
    back = centre[:, 2] < ear[2] + 0.25 * (nose[2] - ear[2])
    over_eyes = centre[:, 1] > eye[1] + 0.4 * (top - eye[1])
    jaw = centre[:, 1] < nose[1] - 0.3 * (eye[1] - nose[1])
    part[(face_owner == "Head") & ((back & ~jaw) | over_eyes | (back & (normal[:, 2] < -0.3)))] = Part.HAIR
    return part
