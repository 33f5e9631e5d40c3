"""Colour, score and place laws of pose maps."""

import numpy as np
import pytest

from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.render import draw_pose, draw_pose_maps
from lisa_video.pose.skeleton import COCO17, DRAWN_SCORE


def _joint(name):
    return COCO17.joints.index(name)


def _pose(points, scores=None):
    """(1, 17, 2) and (1, 17) with the named joints only."""
    xy, score = np.full((1, 17, 2), np.nan, np.float32), np.zeros((1, 17), np.float32)
    for name, point in points.items():
        xy[0, _joint(name)], score[0, _joint(name)] = point, (scores or {}).get(name, 1.0)
    return xy, score


def _draw(points, size=(64, 64), scores=None):
    return draw_pose(*_pose(points, scores), size, COCO17)


def _limb_color(start, end):
    return np.array(COCO17.limb_colors[COCO17.limbs.index((_joint(start), _joint(end)))])


LIMB = {"left_elbow": (10.5, 32.5), "left_wrist": (54.5, 32.5)}


@pytest.mark.parametrize("limb", range(17))
def test_each_limb_is_drawn_in_its_colour(limb):
    start, end = COCO17.limbs[limb]
    places = {start: (10.5, 32.5), end: (54.5, 32.5)}
    if start == COCO17.num_joints:  # the neck, halfway between the shoulders
        places = {_joint("left_shoulder"): (54.5, 10.5), _joint("right_shoulder"): (10.5, 10.5)} | (
            {} if "shoulder" in COCO17.joints[end] else {end: (32.5, 54.5)}
        )
    points = np.full((18, 2), np.nan, np.float32)
    for joint, place in places.items():
        points[joint] = place
    picture = draw_pose(points[None, :17], np.isfinite(points[None, :17, 0]).astype(np.float32), (64, 64), COCO17)
    points[17] = (32.5, 10.5) if start == COCO17.num_joints else np.nan
    column, row = ((points[start] + points[end]) / 2).astype(int)
    assert np.abs(picture[row, column].astype(int) - COCO17.limb_colors[limb]).max() <= 3


@pytest.mark.parametrize(("first", "second"), [(1.0, 1.0), (0.5, 0.8), (0.4, 0.4)])
def test_limb_is_dimmed_by_both_scores_and_disc_by_one(first, second):
    picture = _draw(LIMB, scores={"left_elbow": first, "left_wrist": second}).astype(int)
    color = _limb_color("left_elbow", "left_wrist")
    assert np.abs(picture[32, 32] - color * first * second).max() <= 3
    assert np.abs(picture[32, 54] - color * second).max() <= 3
    assert np.abs(picture[32, 10] - _limb_color("left_shoulder", "left_elbow") * first).max() <= 3


def test_nothing_below_the_drawn_score():
    below = DRAWN_SCORE - 0.01
    assert not _draw(LIMB, scores=dict.fromkeys(LIMB, below)).any()
    one = _draw(LIMB, scores={"left_wrist": below})
    assert one[32, 10].any() and not one[:, 20:].any()


def test_neck_has_the_lower_score_of_the_shoulders():
    points = {"left_shoulder": (50.5, 10.5), "right_shoulder": (14.5, 10.5), "nose": (32.5, 54.5)}
    neck_to_nose = np.array(COCO17.limb_colors[COCO17.limbs.index((17, 0))])
    picture = _draw(points, scores={"left_shoulder": 0.5}).astype(int)
    assert np.abs(picture[32, 32] - neck_to_nose * 0.5).max() <= 3
    assert not _draw(points, scores={"left_shoulder": 0.2})[20:44].any()


@pytest.mark.parametrize("x", [20.0, 20.25, 20.5, 20.8])
def test_sticks_are_placed_below_a_pixel(x):
    column = _draw({"left_elbow": (x, 5), "left_wrist": (x, 59)})[32].max(axis=1).astype(float)
    assert ((np.arange(64) + 0.5) * column).sum() / column.sum() == pytest.approx(x, abs=0.25)


@pytest.mark.parametrize("x", [20.0, 20.4, 20.7])
def test_discs_are_placed_below_a_pixel(x):
    picture = _draw({"left_wrist": (x, x + 9)}).max(axis=2).astype(float)
    rows, columns = np.indices(picture.shape) + 0.5
    centre = [(columns * picture).sum() / picture.sum(), (rows * picture).sum() / picture.sum()]
    assert centre == pytest.approx([x, x + 9], abs=0.35)


@pytest.mark.parametrize(("side", "low", "high"), [(64, 1.5, 2.5), (128, 1.5, 2.5), (512, 3.5, 4.5), (1024, 7.4, 8.6)])
def test_stick_width_follows_the_size(side, low, high):
    picture = _draw({"left_elbow": (side * 0.2, side / 2 + 0.3), "left_wrist": (side * 0.8, side / 2)}, (side, side))
    profile = picture[:, side // 2].max(axis=1) / picture[:, side // 2].max()
    assert low <= profile.sum() <= high


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e12])
def test_impossible_places_are_not_drawn(bad):
    assert not _draw({"left_wrist": (bad, 5)}).any()
    picture = _draw({"left_elbow": (10.5, 32.5), "left_wrist": (bad, 5)})
    assert picture[32, 10].any() and not picture[:, 20:].any()


def test_limb_without_length_and_unknown_scores_are_harmless():
    assert _draw({"left_elbow": (30, 30), "left_wrist": (30, 30)}).any()
    assert not _draw({"left_wrist": (30, 30)}, scores={"left_wrist": np.nan}).any()
    assert (_draw({"left_wrist": (30, 30)}, scores={"left_wrist": 3.0}) == _draw({"left_wrist": (30, 30)})).all()


def test_no_people_gives_black():
    picture = draw_pose(np.zeros((0, 17, 2), np.float32), np.zeros((0, 17), np.float32), (20, 36), COCO17)
    assert picture.shape == (20, 36, 3) and not picture.any()


def test_later_people_cover_earlier_ones():
    near, far = _pose(LIMB), _pose(LIMB, {"left_elbow": 0.5, "left_wrist": 0.5})
    xy, score = np.concatenate([far[0], near[0]]), np.concatenate([far[1], near[1]])
    assert np.array_equal(draw_pose(xy, score, (64, 64), COCO17)[32, 32], draw_pose(*near, (64, 64), COCO17)[32, 32])
    both_apart = draw_pose(np.concatenate([far[0] + [0, 15], near[0]]).astype(np.float32), score, (64, 64), COCO17)
    assert both_apart[32, 32].any() and both_apart[47, 32].any()


def test_maps_are_the_frames_drawn_one_by_one():
    random = np.random.default_rng(0)
    xy = random.uniform(-10, 60, (3, 2, 17, 2)).astype(np.float32)
    score = random.uniform(0, 1, (3, 2, 17)).astype(np.float32)
    maps = draw_pose_maps(Keypoints(xy, score, np.arange(2)), (40, 52))
    assert maps.shape == (3, 40, 52, 3) and maps.dtype == np.uint8
    for frame in range(3):
        assert np.array_equal(maps[frame], draw_pose(xy[frame], score[frame], (40, 52), COCO17))
    assert not np.array_equal(maps[0], maps[1])
