"""The tally of poses against values worked out by hand: a figure whose box diagonal is 100 pixels."""

from dataclasses import replace

import numpy as np
import pytest

from eval.pose_accuracy.layouts import common_layout, joint_groups, to_layout
from eval.pose_accuracy.pose_metrics import PoseTally, joint_speeds
from lisa_video.errors import UserError
from lisa_video.pose import skeleton as skeletons
from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.skeleton import COCO17, COCO_WHOLEBODY133

FIGURE = np.stack([np.linspace(0, 60, 17), np.linspace(0, 80, 17)], axis=1)


def clip(shift: np.ndarray, people: int = 1, score: float = 1.0) -> Keypoints:
    """The figure shifted to the right, (F,) pixels; further people stand 500 px apart."""
    xy = FIGURE[None, None] + np.stack([shift, 0 * shift], axis=-1)[:, None, None]
    xy = xy + np.array([500.0, 0.0]) * np.arange(people)[None, :, None, None]
    return Keypoints(xy.astype(np.float32), np.full(xy.shape[:3], score, np.float32), np.arange(people))


def moved(keypoints: Keypoints, joints: list[int], by: float, frames: slice = slice(None)) -> Keypoints:
    """Some joints of all people moved down."""
    xy = keypoints.xy.copy()
    xy[frames, :, joints, 1] += by
    return Keypoints(xy, keypoints.score, keypoints.track_id)


STILL = np.zeros(4)


def test_pck_and_errors_over_clips():
    """One clip right, one with 8 of 17 joints off by 15 of 100 px: 26 of 34 within 0.1, all within 0.2."""
    tally = PoseTally(thresholds=(0.1, 0.2))
    tally.add("a", clip(STILL), clip(STILL))
    tally.add("b", moved(clip(STILL), list(range(8)), 15.0), clip(STILL))
    scores = tally.scores()
    assert {key: value.value for key, value in scores.pck.items()} == {"0.1": pytest.approx(26 / 34), "0.2": 1.0}
    assert (scores.pck["0.1"].low, scores.pck["0.1"].high) == (pytest.approx(9 / 17), 1.0)
    assert scores.error.value == pytest.approx(0.15 * 8 / 34, rel=1e-4)
    assert scores.error_px.value == pytest.approx(15 * 8 / 34, rel=1e-4)
    assert scores.pck_per_joint["0.1"]["nose"] == 0.5 and scores.pck_per_joint["0.1"]["left_ankle"] == 1.0
    assert scores.pck_per_group["0.1"] == {"head": 0.5, "torso": 0.75, "arms": 7 / 8, "legs": 1.0}
    assert scores.clips[1].correct == (9 * 4, 17 * 4) and scores.total("visible") == 2 * 17 * 4


def test_pck_by_frame_when_clips_differ_in_length():
    """The last two of four frames of the longer clip are wrong."""
    tally = PoseTally(thresholds=(0.1,))
    tally.add("short", clip(STILL[:2]), clip(STILL[:2]))
    tally.add("long", moved(clip(STILL), list(range(17)), 90.0, slice(2, 4)), clip(STILL))
    assert tally.scores().pck_per_frame["0.1"] == [1.0, 1.0, 0.0, 0.0]


def test_speed_is_in_sizes_per_second():
    """6 px a frame at 25 fps are 150 px/s, or 1.5 diagonals; the ends have one neighbour each."""
    speeds = joint_speeds(clip(np.arange(5) * 6.0), 25.0)
    np.testing.assert_allclose(speeds, 1.5, rtol=1e-5)
    faster = joint_speeds(clip(np.array([0.0, 6.0, 18.0])), 25.0)
    np.testing.assert_allclose(faster[:, 0, 0], [1.5, 2.25, 3.0], rtol=1e-5)
    assert np.isnan(joint_speeds(clip(STILL[:1]), 25.0)).all()
    hidden = clip(np.arange(3) * 6.0)
    hidden.score[1, 0, 0] = 0.0
    assert np.isnan(joint_speeds(hidden, 25.0)[:, 0, 0]).all()


def test_accuracy_by_thirds_of_speed():
    """Three clips at 1, 2 and 4 diagonals per second, of which the fast one is wrong; and none without fps."""
    tally, unknown = PoseTally(thresholds=(0.1,)), PoseTally(thresholds=(0.1,))
    for name, pixels in (("a", 4.0), ("b", 8.0), ("c", 16.0)):
        truth = clip(np.arange(6) * pixels)
        found = moved(truth, list(range(17)), 90.0 if name == "c" else 0.0)
        tally.add(name, found, truth, 25.0)
        unknown.add(name, found, truth)
    scores = tally.scores()
    assert scores.pck_per_speed["0.1"] == [1.0, 1.0, 0.0]
    assert 1.0 <= scores.speed_bounds[0] <= 2.0 <= scores.speed_bounds[1] <= 4.0
    assert np.isnan(unknown.scores().pck_per_speed["0.1"]).all() and np.isnan(unknown.scores().speed_bounds).all()


def test_swapped_sides_are_a_share_of_the_misses():
    """All pairs exchanged: neighbours on the line lie 6.25 px apart, so at 0.05 all 16 misses are swaps; then half."""
    truth = clip(STILL)
    exchanged = Keypoints(truth.xy[:, :, COCO17.flip_index], truth.score, truth.track_id)
    tally = PoseTally(thresholds=(0.05, 0.1))
    tally.add("a", exchanged, truth)
    assert (tally.scores().pck["0.05"].value, tally.scores().swap_rate["0.05"].value) == (pytest.approx(1 / 17), 1.0)
    assert tally.scores().pck["0.1"].value == 1.0 and np.isnan(tally.scores().swap_rate["0.1"].value)
    tally.add("b", moved(truth, list(range(1, 17)), 90.0), truth)
    assert tally.scores().swap_rate["0.05"].value == 0.5


def test_missing_and_extra_people():
    """Two of three found in one clip, one made up in the other: half of four true people missing is 1 of 4."""
    tally = PoseTally()
    tally.add("a", clip(STILL, 2), clip(STILL, 3))
    tally.add("b", clip(STILL, 2), clip(STILL, 1))
    scores = tally.scores()
    assert [scores.total(count) for count in ("people", "missing", "extra", "unmeasured")] == [16, 4, 4, 0]
    assert scores.pck["0.1"].value == pytest.approx(3 / 4) and scores.oks.value == pytest.approx(3 / 4)
    assert 0.6 < scores.oks_ap.value < 0.8 and scores.oks_ap50 == pytest.approx(scores.oks_ap.value)
    # Of the possible draws of two clips the first one twice is among the lowest: precision 1 up to recall 2/3.
    assert scores.oks_ap.low == pytest.approx(67 / 101)


def test_nothing_to_find_is_not_a_number():
    """True people without visible joints."""
    tally = PoseTally()
    tally.add("a", clip(STILL), clip(STILL, score=0.2))
    scores = tally.scores()
    assert tally.visible == 0
    assert np.isnan([scores.pck["0.1"].value, scores.error.value, scores.oks.value, scores.oks_ap.value]).all()


NARROW = replace(COCO17, name="narrow", joints=COCO17.joints[5:])


@pytest.fixture
def narrow(monkeypatch):
    """A layout without a head."""
    monkeypatch.setitem(skeletons._SKELETONS, "narrow", NARROW)


def test_layouts_meet_in_coco_17(narrow):
    """Joints are taken by name; a layout of its own stays what it is."""
    assert common_layout(["coco_wholebody133", "coco17"]) == "coco17"
    assert common_layout(["coco_wholebody133"] * 2) == "coco_wholebody133"
    xy = np.arange(133 * 2, dtype=np.float32).reshape(1, 1, 133, 2)
    whole = Keypoints(xy, np.ones((1, 1, 133), np.float32), np.zeros(1, np.int64), "coco_wholebody133")
    body = to_layout(whole, "coco17")
    assert body.skeleton == "coco17"
    for name in COCO17.joints:
        place = COCO_WHOLEBODY133.joints.index(name)
        np.testing.assert_array_equal(body.xy[0, 0, COCO17.joints.index(name)], xy[0, 0, place])
    assert to_layout(body, "coco17") is body
    with pytest.raises(UserError, match=r"narrow lacks left_ear, left_eye, nose"):
        common_layout(["narrow", "coco17"])


def test_parts_of_the_body(narrow):
    """Every joint belongs to one part, and a layout has only the parts that it shows."""
    assert set(joint_groups("narrow")) == {"torso", "arms", "legs"}
    whole = joint_groups("coco_wholebody133")
    assert {name: len(places) for name, places in whole.items()} == {
        "head": 5, "torso": 4, "arms": 4, "legs": 4, "feet": 6, "face": 68, "hands": 42,
    }  # fmt: skip
    assert sorted(place for places in whole.values() for place in places) == list(range(133))
