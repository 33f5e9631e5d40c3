"""Pose maps: keypoints drawn as coloured sticks on black, in the manner of OpenPose and DWPose.

Sticks and discs are dimmed by the detector's confidence, so a doubtful joint weighs less than a sure one. What is
drawn of a layout, in which colours and how thick, stands in `lisa_video/pose/skeleton.py`.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.skeleton import DRAWN_SCORE, Skeleton, skeleton_by_name

_STICK_WIDTH = 4 / 512
"""Of the picture's short side: OpenPose's 4 pixels at 512."""
_MIN_STICK_PX = 1.5

# cv2's anti-aliased edges bleed outwards; measured, and taken off so that sizes hold on the picture.
_STICK_BLEED_PX = 1.45
_DISC_BLEED_PX = 0.45
_SUBPIXEL_BITS = 4


def draw_pose(
    xy: Float[np.ndarray, "P K 2"], score: Float[np.ndarray, "P K"], size: tuple[int, int], skeleton: Skeleton
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw the people of one frame, later people over earlier ones.

    A limb is drawn if both its ends reach `DRAWN_SCORE`, in its colour times the product of their scores; a joint
    as a disc in its colour times its score. The neck is the midpoint of the shoulders and has the lower one of their
    scores.

    Args:
        xy: (P, K, 2) pixels, (0, 0) is the outer corner of the top left pixel; NaN is not drawn.
        score: (P, K) in [0, 1].
        size: (H, W) of the picture, pixels.
        skeleton: the layout of the K joints.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = size
    canvas = np.zeros((height, width, 3), np.uint8)
    points, score = _with_neck(xy, score, skeleton)
    # Far beyond the picture cv2's fixed-point numbers would overflow; nothing there can be meant seriously.
    with np.errstate(invalid="ignore"):
        drawn = (score >= DRAWN_SCORE) & (np.abs(points) < 8 * max(size)).all(axis=-1)
    score = np.clip(score, 0, 1)
    stick_px = max(_MIN_STICK_PX, _STICK_WIDTH * min(size))
    for person in range(len(points)):
        _draw_limbs(canvas, points[person], score[person], drawn[person], skeleton, stick_px)
        _draw_joints(canvas, points[person], score[person], drawn[person], skeleton, stick_px)
    return canvas


def draw_pose_maps(keypoints: Keypoints, size: tuple[int, int]) -> UInt8[np.ndarray, "F H W 3"]:
    """Draw every frame of a clip.

    Args:
        keypoints: in pixels of pictures of `size`.
        size: (H, W), pixels.

    Returns:
        (F, H, W, 3) uint8 RGB.
    """
    skeleton = skeleton_by_name(keypoints.skeleton)
    maps = np.empty((keypoints.num_frames, *size, 3), np.uint8)
    for frame in range(keypoints.num_frames):
        maps[frame] = draw_pose(keypoints.xy[frame], keypoints.score[frame], size, skeleton)
    return maps


def _with_neck(xy: np.ndarray, score: np.ndarray, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Append the neck as joint K."""
    shoulders = [skeleton.joints.index("left_shoulder"), skeleton.joints.index("right_shoulder")]
    neck_xy = xy[:, shoulders].mean(axis=1, keepdims=True)
    neck_score = score[:, shoulders].min(axis=1, keepdims=True)
    return np.concatenate([xy, neck_xy], axis=1), np.concatenate([score, neck_score], axis=1)


def _draw_limbs(
    canvas: np.ndarray, points: np.ndarray, score: np.ndarray, drawn: np.ndarray, skeleton: Skeleton, stick_px: float
) -> None:
    starts, ends = np.array(skeleton.limbs).T
    along = points[ends] - points[starts]
    length = np.hypot(along[:, 0], along[:, 1])
    # A limb that points at the camera has no direction; the discs of its ends cover the place.
    visible = np.flatnonzero(drawn[starts] & drawn[ends] & (length > 1e-3))
    starts, ends, along, length = starts[visible], ends[visible], along[visible], length[visible]
    width = np.maximum(np.array(skeleton.limb_widths)[visible] * stick_px, _MIN_STICK_PX)
    half_width = (np.maximum(width - _STICK_BLEED_PX, 0.0) / 2).astype(points.dtype)
    side = np.stack([-along[:, 1], along[:, 0]], axis=1) / length[:, None] * half_width[:, None]
    quads = np.stack([points[starts] + side, points[ends] + side, points[ends] - side, points[starts] - side], axis=1)
    colors = np.array(skeleton.limb_colors)[visible] * (score[starts] * score[ends])[:, None]
    for quad, color in zip(_fixed_point(quads), colors.round().tolist(), strict=True):
        cv2.fillConvexPoly(canvas, quad, color, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)


def _draw_joints(
    canvas: np.ndarray, points: np.ndarray, score: np.ndarray, drawn: np.ndarray, skeleton: Skeleton, stick_px: float
) -> None:
    visible = [joint for joint in skeleton.discs if drawn[joint]]
    for joint, center in zip(visible, _fixed_point(points[visible]).tolist(), strict=True):
        disc = skeleton.discs[joint]
        radius = round(max(stick_px * disc.radius - _DISC_BLEED_PX, 0.5) * 2**_SUBPIXEL_BITS)
        color = [round(channel * float(score[joint])) for channel in disc.color]
        cv2.circle(canvas, center, radius, color, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)


def _fixed_point(points: np.ndarray) -> np.ndarray:
    # cv2 counts from pixel centres, keypoints from the outer corner.
    fixed: np.ndarray = np.round((points - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32)
    return fixed
