"""Who is who in a frame: people found are matched with true people by the boxes of their visible joints.

Hungarian assignment on the cost 1 - IoU, as in the image protocol published with LISA (arXiv 2606.27192).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment

from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.skeleton import VISIBLE_SCORE

Box = np.ndarray
"""(4,) float: left, top, right, bottom, in pixels."""


def visible_joints(keypoints: Keypoints) -> Bool[np.ndarray, "F P K"]:
    """Joints with a known place and a score of at least `VISIBLE_SCORE`."""
    visible: np.ndarray = np.isfinite(keypoints.xy).all(axis=-1) & (keypoints.score >= VISIBLE_SCORE)
    return visible


def people_boxes(xy: Float[np.ndarray, "P K 2"], visible: Bool[np.ndarray, "P K"]) -> dict[int, Box]:
    """Boxes of the visible joints of one frame, for those people who have any: they are present."""
    return {
        person: np.concatenate([xy[person, seen].min(axis=0), xy[person, seen].max(axis=0)])
        for person, seen in enumerate(visible)
        if seen.any()
    }


def match_people(found: dict[int, Box], true: dict[int, Box]) -> dict[int, int]:
    """True person -> person found. The smaller side is matched completely, even where boxes do not overlap."""
    found_ids, true_ids = list(found), list(true)
    if not found_ids or not true_ids:
        return {}
    cost = np.array([[1.0 - _iou(true[t], found[p]) for p in found_ids] for t in true_ids])
    rows, columns = linear_sum_assignment(cost)
    return {true_ids[row]: found_ids[column] for row, column in zip(rows, columns, strict=True)}


def _iou(a: Box, b: Box) -> float:
    overlap = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0.0, None).prod()
    union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - overlap
    return float(overlap) / float(union) if union > 0 else 0.0
