"""Layouts of joints: parts of the body, and what two layouts have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from lisa_video.errors import UserError
from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.skeleton import COCO17, skeleton_by_name

_GROUPS = {
    "head": r"nose|(left|right)_(eye|ear)",
    "torso": r"(left|right)_(shoulder|hip)",
    "arms": r"(left|right)_(elbow|wrist)",
    "legs": r"(left|right)_(knee|ankle)",
    "feet": r".*(toe|heel).*",
    "face": r"face.*",
    "hands": r".*(hand|thumb|finger).*",
}
"""Name of a part -> pattern of its joints' names, in the layouts of COCO and COCO-WholeBody."""


def joint_groups(skeleton: str) -> dict[str, list[int]]:
    """Part of the body -> its joints, for those parts that the layout has."""
    joints = skeleton_by_name(skeleton).joints
    groups = {
        name: [place for place, joint in enumerate(joints) if re.fullmatch(pattern, joint)]
        for name, pattern in _GROUPS.items()
    }
    return {name: places for name, places in groups.items() if places}


def common_layout(names: Iterable[str]) -> str:
    """The layout in which poses of all these layouts can be compared: their own if it is one, else COCO's 17.

    Raises:
        UserError: a layout lacks some of COCO's joints.
    """
    different = sorted(set(names))
    if len(different) == 1:
        return different[0]
    for name in different:
        if lacking := sorted(set(COCO17.joints) - set(skeleton_by_name(name).joints)):
            raise UserError(
                f"poses of the layouts {', '.join(different)} have no common joints: {name} lacks {', '.join(lacking)}",
                remedy="use keypoints and a detector of one layout",
            )
    return COCO17.name


def to_layout(keypoints: Keypoints, name: str) -> Keypoints:
    """The joints of another layout, taken by name; all of them must be there."""
    if keypoints.skeleton == name:
        return keypoints
    joints = skeleton_by_name(keypoints.skeleton).joints
    places = np.array([joints.index(joint) for joint in skeleton_by_name(name).joints])
    return Keypoints(keypoints.xy[:, :, places], keypoints.score[:, :, places], keypoints.track_id, name)
