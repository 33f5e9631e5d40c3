"""Laws of keypoint layouts."""

import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.pose.skeleton import COCO17, skeleton_by_name


def test_tables_are_of_equal_length_and_in_range():
    assert COCO17.num_joints == 17 == len(COCO17.oks_sigmas) == len(set(COCO17.joints))
    assert len(COCO17.limbs) == len(COCO17.limb_colors) == len(set(COCO17.limb_colors)) == 17
    assert all(0 <= start <= 17 and 0 <= end < 17 and start != end for start, end in COCO17.limbs)


def test_limbs_form_one_tree_from_the_neck():
    reached = {17}
    for start, end in COCO17.limbs:  # each limb starts where one before it has ended
        assert start in reached and end not in reached
        reached.add(end)
    assert reached == set(range(18))


def test_flip_swaps_sides_and_is_its_own_inverse():
    flip = COCO17.flip_index
    assert np.array_equal(flip[flip], np.arange(17))
    for joint, mirrored in zip(COCO17.joints, flip, strict=True):
        side, _, part = joint.rpartition("_")
        other = {"left": "right_", "right": "left_", "": ""}[side]
        assert COCO17.joints[mirrored] == other + part
    assert np.array_equal(np.array(COCO17.oks_sigmas)[flip], COCO17.oks_sigmas)


def test_limbs_are_symmetric():
    flip = [*COCO17.flip_index, 17]
    assert {(flip[start], flip[end]) for start, end in COCO17.limbs} == set(COCO17.limbs)


def test_lookup():
    assert skeleton_by_name("coco17") is COCO17
    with pytest.raises(UserError, match="coco17"):
        skeleton_by_name("coco71")
