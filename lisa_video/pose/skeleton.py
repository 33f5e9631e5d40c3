"""Keypoint layouts: joint names, mirror pairs, limbs and the OpenPose colours in which they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lisa_video.errors import UserError

VISIBLE_SCORE = 0.5
"""A keypoint counts as visible (in boxes, PCK and losses) from this score upwards.

The demo data writes 1.0 for joints in sight, 0.4 for joints hidden behind a surface and 0.0 outside the frame.
"""

DRAWN_SCORE = 0.3
"""A keypoint is drawn into the pose map from this score upwards, dimmed by its score (as MimicMotion does)."""


@dataclass(frozen=True)
class Skeleton:
    """A keypoint layout of K joints.

    Attributes:
        name: key under which keypoint files refer to the layout.
        joints: K joint names; "left" and "right" are the person's own.
        limbs: pairs of joint indices to draw; index K means the neck (midpoint of the shoulders, OpenPose's joint 1).
        limb_colors: RGB in [0, 255], one per limb (OpenPose-18 / DWPose colours).
        oks_sigmas: K per-joint constants of the COCO object keypoint similarity.
    """

    name: str
    joints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    limb_colors: tuple[tuple[int, int, int], ...]
    oks_sigmas: tuple[float, ...]

    @property
    def num_joints(self) -> int:
        """K, the number of joints."""
        return len(self.joints)

    @property
    def flip_index(self) -> np.ndarray:
        """(K,) permutation that swaps left and right joints; apply it when the picture is mirrored."""
        mirrored = [_mirrored_name(joint) for joint in self.joints]
        return np.array([self.joints.index(joint) for joint in mirrored])


def _mirrored_name(joint: str) -> str:
    if joint.startswith("left_"):
        return "right_" + joint.removeprefix("left_")
    if joint.startswith("right_"):
        return "left_" + joint.removeprefix("right_")
    return joint


_NECK = 17

# fmt: off
COCO17 = Skeleton(
    name="coco17",
    joints=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear",
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
        "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    # Order and colours of OpenPose's 17 drawn limbs.
    limbs=(
        (_NECK, 6), (_NECK, 5), (6, 8), (8, 10), (5, 7), (7, 9), (_NECK, 12), (12, 14), (14, 16),
        (_NECK, 11), (11, 13), (13, 15), (_NECK, 0), (0, 2), (2, 4), (0, 1), (1, 3),
    ),
    limb_colors=(
        (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0),
        (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255),
        (170, 0, 255), (255, 0, 255), (255, 0, 170),
    ),
    # COCO keypoint evaluation, pycocotools `Params.kpt_oks_sigmas`.
    oks_sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062,
        0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
    ),
)
# fmt: on

_SKELETONS = {COCO17.name: COCO17}


def skeleton_by_name(name: str) -> Skeleton:
    """Look up a layout.

    Raises:
        UserError: the name is unknown.
    """
    if name not in _SKELETONS:
        raise UserError(f"unknown skeleton {name!r}", remedy=f"use one of: {', '.join(sorted(_SKELETONS))}")
    return _SKELETONS[name]
