"""Keypoint layouts: joint names, mirror pairs, limbs and the OpenPose colours in which they are drawn."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from lisa_video.errors import UserError

VISIBLE_SCORE = 0.5
"""A keypoint counts as visible (in boxes, PCK and losses) from this score upwards.

The demo data writes 1.0 for joints in sight, 0.4 for joints hidden behind a surface and 0.0 outside the frame.
"""

DRAWN_SCORE = 0.3
"""A keypoint is drawn into the pose map from this score upwards, dimmed by its score (as MimicMotion does)."""


Color = tuple[int, int, int]
"""RGB in [0, 255]."""


@dataclass(frozen=True)
class Disc:
    """How a joint is drawn.

    Attributes:
        color: before it is dimmed by the joint's score.
        radius: over the width of a body stick.
    """

    color: Color
    radius: float = 1.0


@dataclass(frozen=True)
class Skeleton:
    """A keypoint layout of K joints.

    Attributes:
        name: key under which keypoint files refer to the layout.
        joints: K joint names; "left" and "right" are the person's own.
        limbs: pairs of joint indices to draw; index K means the neck (midpoint of the shoulders, OpenPose's joint 1).
        limb_colors: one per limb (OpenPose-18 / DWPose colours).
        limb_widths: one per limb, over the width of a body stick.
        discs: joint index -> its disc, in the order of drawing; joints without one are not drawn.
        oks_sigmas: K per-joint constants of the COCO object keypoint similarity.
    """

    name: str
    joints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    limb_colors: tuple[Color, ...]
    limb_widths: tuple[float, ...]
    discs: dict[int, Disc]
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
    if joint.startswith("face-"):
        return f"face-{_FACE_MIRROR[int(joint.removeprefix('face-'))]}"
    return joint


# fmt: off
_BODY = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)
# Order and colours of OpenPose's 17 drawn limbs; "neck" is no joint of COCO.
_BODY_LIMBS = (
    ("neck", "right_shoulder"), ("neck", "left_shoulder"), ("right_shoulder", "right_elbow"),
    ("right_elbow", "right_wrist"), ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
    ("neck", "right_hip"), ("right_hip", "right_knee"), ("right_knee", "right_ankle"),
    ("neck", "left_hip"), ("left_hip", "left_knee"), ("left_knee", "left_ankle"),
    ("neck", "nose"), ("nose", "right_eye"), ("right_eye", "right_ear"), ("nose", "left_eye"), ("left_eye", "left_ear"),
)
_BODY_COLORS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0),
    (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255),
    (170, 0, 255), (255, 0, 255), (255, 0, 170),
)
# COCO keypoint evaluation, pycocotools `Params.kpt_oks_sigmas`.
_BODY_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062,
    0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
)

_FEET = ("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel")
# The 68 points of iBUG 300-W: jaw, brows, nose, eyes, mouth; the person's right side comes first.
_FACE_MIRROR = (
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1), 45, 44, 43, 42, 47, 46,
    39, 38, 37, 36, 41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
)
_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
_HAND = ("hand_root", *(f"{finger}{bone}" for finger in _FINGERS for bone in range(1, 5)))
_HAND_BONES = tuple((0 if bone % 4 == 1 else bone - 1, bone) for bone in range(1, 21))
# COCO-WholeBody's evaluation (Jin et al., "Whole-body human pose estimation in the wild", ECCV 2020).
_FEET_SIGMAS = (0.068, 0.066, 0.066, 0.092, 0.094, 0.094)
_FACE_SIGMAS = (
    0.042, 0.043, 0.044, 0.043, 0.040, 0.035, 0.031, 0.025, 0.020, 0.023, 0.029, 0.032, 0.037, 0.038, 0.043, 0.041,
    0.045, 0.013, 0.012, 0.011, 0.011, 0.012, 0.012, 0.011, 0.011, 0.013, 0.015, 0.009, 0.007, 0.007, 0.007, 0.012,
    0.009, 0.008, 0.016, 0.010, 0.017, 0.011, 0.009, 0.011, 0.009, 0.007, 0.013, 0.008, 0.011, 0.012, 0.010, 0.034,
    0.008, 0.008, 0.009, 0.008, 0.008, 0.007, 0.010, 0.008, 0.009, 0.009, 0.009, 0.007, 0.007, 0.008, 0.011, 0.008,
    0.008, 0.008, 0.010, 0.008,
)
_HAND_SIGMAS = (
    0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024, 0.022, 0.026, 0.017, 0.021, 0.021,
    0.032, 0.020, 0.019, 0.022, 0.031,
)
# fmt: on


def _body_limbs(num_joints: int) -> tuple[tuple[int, int], ...]:
    """Pairs of joint indices; the neck is joint `num_joints`."""
    place = {"neck": num_joints, **{joint: index for index, joint in enumerate(_BODY)}}
    return tuple((place[start], place[end]) for start, end in _BODY_LIMBS)


def _body_discs() -> dict[int, Disc]:
    """A joint has the colour of the limb that ends in it."""
    color_of = {end: color for (_, end), color in zip(_BODY_LIMBS, _BODY_COLORS, strict=True)}
    return {index: Disc(color_of[joint]) for index, joint in enumerate(_BODY)}


def _hand_colors() -> tuple[Color, ...]:
    """DWPose's: once around the circle of hues."""
    hues = [colorsys.hsv_to_rgb(bone / len(_HAND_BONES), 1.0, 1.0) for bone in range(len(_HAND_BONES))]
    return tuple((round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in hues)


COCO17 = Skeleton(
    name="coco17",
    joints=_BODY,
    limbs=_body_limbs(17),
    limb_colors=_BODY_COLORS,
    limb_widths=(1.0,) * 17,
    discs=_body_discs(),
    oks_sigmas=_BODY_SIGMAS,
)

_LEFT_HAND, _RIGHT_HAND = 91, 112  # where they start

COCO_WHOLEBODY133 = Skeleton(
    name="coco_wholebody133",
    joints=(
        *_BODY, *_FEET, *(f"face-{point}" for point in range(68)),
        *(f"left_{joint}" for joint in _HAND), *(f"right_{joint}" for joint in _HAND),
    ),
    # As DWPose draws: no feet; hands in thin sticks with blue joints; the face in white points.
    limbs=(
        *_body_limbs(133),
        *((root + start, root + end) for root in (_LEFT_HAND, _RIGHT_HAND) for start, end in _HAND_BONES),
    ),
    limb_colors=(*_BODY_COLORS, *_hand_colors(), *_hand_colors()),
    limb_widths=(*(1.0,) * 17, *(0.5,) * 40),
    discs=_body_discs()
    | {joint: Disc((0, 0, 255)) for joint in range(_LEFT_HAND, 133)}
    | {joint: Disc((255, 255, 255), 0.75) for joint in range(23, _LEFT_HAND)},
    oks_sigmas=(*_BODY_SIGMAS, *_FEET_SIGMAS, *_FACE_SIGMAS, *_HAND_SIGMAS, *_HAND_SIGMAS),
)  # fmt: skip

_SKELETONS = {skeleton.name: skeleton for skeleton in (COCO17, COCO_WHOLEBODY133)}


def skeleton_by_name(name: str) -> Skeleton:
    """Look up a layout.

    Raises:
        UserError: the name is unknown.
    """
    if name not in _SKELETONS:
        raise UserError(f"unknown skeleton {name!r}", remedy=f"use one of: {', '.join(sorted(_SKELETONS))}")
    return _SKELETONS[name]
