"""The size of a person in a frame: the length in pixels by which distances of joints are divided.

- `box`: diagonal of the box of the visible joints, as in the image protocol published with LISA (arXiv 2606.27192).
- `torso`: shoulder to opposite hip (the mean of both where all four are visible), after Sapp and Taskar, "MODEC:
  Multimodal decomposable models for human pose estimation", CVPR 2013, who use one side. It shrinks with the view
  from the side less than the shoulders do, and arms do not change it.
- `head`: centre of the visible face joints (nose, eyes, ears) to the neck (midpoint of the shoulders). The head box of
  Andriluka et al., "2D human pose estimation", CVPR 2014 (PCKh) is no joint of COCO's layouts, so numbers of this
  normaliser are not PCKh.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.matching import people_boxes, visible_joints
from lisa_video.pose.skeleton import skeleton_by_name

Normaliser = Literal["box", "torso", "head"]
NORMALISERS: tuple[Normaliser, ...] = get_args(Normaliser)
DESCRIPTIONS: dict[Normaliser, str] = {
    "box": "diagonal of the box of the visible true keypoints, per frame",
    "torso": "true shoulder to opposite hip, mean of the visible ones, per frame",
    "head": "centre of the visible true face joints to the midpoint of the true shoulders, per frame",
}
"""What stands in protocols."""
_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_SHOULDERS = ("left_shoulder", "right_shoulder")
_TORSO = (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip"))


def person_sizes(keypoints: Keypoints, normaliser: Normaliser) -> Float[np.ndarray, "F P"]:
    """Pixels, float64; 0 where the joints that are needed are not visible.

    Args:
        keypoints: of a layout that has COCO's 17 body joints.
        normaliser: which length.
    """
    xy, visible = keypoints.xy.astype(np.float64), visible_joints(keypoints)
    if normaliser == "box":
        return _box_diagonals(xy, visible)
    joints = skeleton_by_name(keypoints.skeleton).joints
    if normaliser == "head":
        face, shoulders = ([joints.index(name) for name in names] for names in (_FACE, _SHOULDERS))
        measurable = visible[..., face].any(axis=-1) & visible[..., shoulders].all(axis=-1)
        neck = xy[..., shoulders, :].mean(axis=-2)
        length = np.linalg.norm(_mean_where(xy[..., face, :], visible[..., face, None]) - neck, axis=-1)
        return np.where(measurable, length, 0.0)
    pairs = np.array([[joints.index(name) for name in pair] for pair in _TORSO])  # (2,2)
    lengths = np.linalg.norm(xy[..., pairs[:, 0], :] - xy[..., pairs[:, 1], :], axis=-1)  # (F,P,2)
    seen = visible[..., pairs[:, 0]] & visible[..., pairs[:, 1]]
    return _mean_where(lengths[..., None], seen[..., None])[..., 0]


def _box_diagonals(xy: np.ndarray, visible: Bool[np.ndarray, "F P K"]) -> Float[np.ndarray, "F P"]:
    sizes = np.zeros(visible.shape[:2])
    for frame in range(len(xy)):
        for person, box in people_boxes(xy[frame], visible[frame]).items():
            sizes[frame, person] = float(np.hypot(box[2] - box[0], box[3] - box[1]))
    return sizes


def _mean_where(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Mean over the last axis but one of the values that count; 0 where none does."""
    mean: np.ndarray = np.where(counted, values, 0.0).sum(axis=-2) / np.maximum(counted.sum(axis=-2), 1)
    return mean
