"""The figure: mannequin-x convex hulls with part labels, a face, and its COCO-17 keypoints in 3D."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from mannequin import Mannequin
from scipy.spatial import ConvexHull

from data_tools.demo.motion import Motion
from data_tools.demo.parts import Part, eye_patches, face_landmarks, label_parts
from lisa_video.pose.skeleton import COCO17

LIMB_JOINTS = {
    "left_shoulder": "L_Shoulder", "right_shoulder": "R_Shoulder", "left_elbow": "L_Elbow", "right_elbow": "R_Elbow",
    "left_wrist": "L_Wrist", "right_wrist": "R_Wrist", "left_hip": "L_Hip", "right_hip": "R_Hip",
    "left_knee": "L_Knee", "right_knee": "R_Knee", "left_ankle": "L_Ankle", "right_ankle": "R_Ankle",
}  # fmt: skip
"""COCO joint -> SMPL-X joint that it is; the five points of the face are landmarks on the head's surface."""


@dataclass(frozen=True)
class _Topology:
    """What does not depend on the body shape.

    Attributes:
        source: (V,) int, vertex of the mannequin that each kept vertex is.
        joint: (V,) int, joint that carries the vertex.
        faces: (F, 3) int, triangles, counter-clockwise seen from outside.
        hull: (F,) int, convex piece that the face belongs to.
        hulls: for each piece, the range of its vertices.
    """

    source: np.ndarray
    joint: np.ndarray
    faces: np.ndarray
    hull: np.ndarray
    hulls: tuple[slice, ...]


@dataclass(frozen=True)
class PosedBody:
    """A body over T frames, in metres with y up and the floor at y = 0.

    Attributes:
        vertices: (T, V, 3) float32.
        faces: (F, 3) int.
        part: (F,) int, `Part` of each face.
        hulls: ranges of the vertices of each convex piece (for shadows).
        keypoints: (T, 17, 3) float64, COCO-17 joints.
        height: metres, standing.
    """

    vertices: np.ndarray
    faces: np.ndarray
    part: np.ndarray
    hulls: tuple[slice, ...]
    keypoints: np.ndarray
    height: float


@lru_cache(maxsize=1)
def _mannequin() -> Mannequin:
    return Mannequin("convex", lod=0)


def _farthest_points(points: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` points spread as widely as possible, beginning with the two ends of the longest axis."""
    centred = points - points.mean(axis=0)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    chosen = [int((centred @ axis).argmax()), int((centred @ axis).argmin())]
    distance = np.linalg.norm(points[:, None] - points[chosen], axis=2).min(axis=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return np.array(chosen)


def _outward_faces(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convex hull: indices of the points on it and its triangles (into those points), turned outwards."""
    hull = ConvexHull(points)
    corners = points[hull.simplices]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = (normal * hull.equations[:, :3]).sum(axis=1) < 0
    triangles = hull.simplices.copy()
    triangles[inward] = triangles[inward][:, ::-1]
    used, compact = np.unique(triangles, return_inverse=True)
    return used, compact.reshape(triangles.shape)


def _pieces(model: Mannequin) -> list[tuple[np.ndarray, int]]:
    """(vertex indices, joint) of each convex piece; the fingers of a hand become one mitten and one thumb."""
    weights = model._weights  # the package has no public access to the ranges of its links
    pieces: list[tuple[np.ndarray, int]] = []
    merged: dict[str, list[np.ndarray]] = {}
    for joint, start, count in zip(
        weights.link_joint_indices, weights.link_vertex_starts, weights.link_vertex_counts, strict=True
    ):
        name, vertices = model.joint_names[joint], np.arange(start, start + count)
        if name[-1].isdigit() and not name.startswith("Spine"):
            merged.setdefault(name[:2] + ("Thumb" if "Thumb" in name else "Fingers"), []).append(vertices)
        else:
            pieces.append((vertices, joint))
    for name, parts in merged.items():
        # The hands keep one pose, so their fingers move with the wrist.
        pieces.append((np.concatenate(parts), model.joint_index(f"{name[0]}_Wrist")))
    return pieces


@lru_cache(maxsize=4)
def _topology(detail: int) -> _Topology:
    """Convex pieces reduced to at most `detail` vertices each.

    Every piece is changed by an affine map when the body shape changes, so the hull of the neutral shape stays right.
    """
    model = _mannequin()
    model.reshape(np.zeros(10, np.float32))
    rest = model.vertices(model.rest_pose())
    source, joints, faces, hull, ranges = [], [], [], [], []
    total = 0
    for number, (vertices, joint) in enumerate(_pieces(model)):
        vertices = vertices[_farthest_points(rest[vertices], detail)]
        used, triangles = _outward_faces(rest[vertices].astype(np.float64))
        source.append(vertices[used])
        joints.append(np.full(len(used), joint))
        faces.append(triangles + total)
        hull.append(np.full(len(triangles), number))
        ranges.append(slice(total, total + len(used)))
        total += len(used)
    return _Topology(
        np.concatenate(source), np.concatenate(joints), np.concatenate(faces), np.concatenate(hull), tuple(ranges)
    )


class Body:
    """A figure of one shape.

    Args:
        shape: (10,) SMPL-X shape coefficients, about -2 to 2.
        detail: most vertices per convex piece; more for larger pictures.
    """

    def __init__(self, shape: Sequence[float] | np.ndarray, detail: int = 28) -> None:
        topology = _topology(detail)
        self._model = _mannequin()
        self._shape = np.asarray(shape, np.float32)
        self._model.reshape(self._shape)
        rest = self._model.rest_pose()
        joints = self._model.joint_transforms(rest)
        vertices = self._model.vertices(rest)[topology.source]
        self._joints = joints[:, :3, 3]
        self._floor = float(vertices[:, 1].min())
        self.height = float(vertices[:, 1].max() - self._floor)
        head = self._index("Head")
        self._landmarks = face_landmarks(vertices[topology.joint == head]) - self._joints[head]
        eyes, eye_faces = eye_patches(self._landmarks[1:3], self.height)
        self._local = np.concatenate([vertices - self._joints[topology.joint], eyes])
        self._carrier = np.concatenate([topology.joint, np.full(len(eyes), head)])
        self.faces = np.concatenate([topology.faces, eye_faces + len(vertices)])
        self.hulls = topology.hulls
        part = label_parts(
            vertices, topology.faces, topology.joint, self._joints, self._model.joint_names,
            self._landmarks + self._joints[head],
        )  # fmt: skip
        self.part = np.concatenate([part, np.full(len(eye_faces), Part.EYE)])

    def _index(self, joint: str) -> int:
        return self._model.joint_index(joint)

    def pose(self, motion: Motion) -> PosedBody:
        """Pose the body and stand it on the floor: its lowest point over all frames is at y = 0."""
        frames = len(motion.translation)
        self._model.reshape(self._shape)
        pose = self._model.rest_pose(batch_dims=(frames,))
        pose["pelvis_rotation"] = motion.rotations[:, 0].astype(np.float32)
        pose["body_pose"] = motion.rotations[:, 1:].astype(np.float32)
        transforms = self._model.joint_transforms(pose).astype(np.float64)
        scale = (self._joints[0, 1] - self._floor) / motion.hip_height
        place = motion.translation * scale - transforms[:, 0, :3, 3]
        turn, joints = transforms[..., :3, :3], transforms[..., :3, 3] + place[:, None]
        vertices = np.einsum("tvij,vj->tvi", turn[:, self._carrier], self._local) + joints[:, self._carrier]
        lift = np.array([0.0, vertices[..., 1].min(), 0.0])
        head = self._index("Head")
        face = np.einsum("tij,kj->tki", turn[:, head], self._landmarks) + joints[:, head, None]
        limbs = [self._index(LIMB_JOINTS[name]) for name in COCO17.joints[5:]]
        keypoints = np.concatenate([face, joints[:, limbs]], axis=1) - lift
        return PosedBody(
            (vertices - lift).astype(np.float32), self.faces, self.part, self.hulls, keypoints, self.height
        )
