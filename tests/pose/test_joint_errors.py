"""Sizes of a person, swapped sides and extra people, worked out by hand."""

import numpy as np
import pytest

from lisa_video.pose.accuracy import count_correct
from lisa_video.pose.joint_errors import joint_errors
from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.person_size import person_sizes
from lisa_video.pose.skeleton import COCO17

# A person of 60 x 80 pixels between shoulders and knees: box diagonal 100 without the arms.
BODY = {
    "nose": (30.0, -10.0), "left_shoulder": (60.0, 0.0), "right_shoulder": (0.0, 0.0), "left_hip": (40.0, 30.0),
    "right_hip": (20.0, 30.0), "left_knee": (60.0, 70.0), "right_knee": (0.0, 70.0),
}  # fmt: skip
CROSS = 50.0
"""Shoulder to opposite hip: 40 x 30 pixels."""


def person(*others: dict[str, tuple[float, float]], hidden: tuple[str, ...] = (), **moved: tuple[float, float]):
    """One frame of people; joints that are not named are unknown."""
    people = [{**BODY, **moved}, *others]
    xy = np.full((1, len(people), 17, 2), np.nan, np.float32)
    score = np.zeros((1, len(people), 17), np.float32)
    for number, joints in enumerate(people):
        for name, place in joints.items():
            xy[0, number, COCO17.joints.index(name)] = place
            score[0, number, COCO17.joints.index(name)] = 0.3 if name in hidden else 1.0
    return Keypoints(xy, score, np.arange(len(people)))


def test_sizes_by_hand():
    """Box 60 x 80; torso 50 on both sides; head from the nose to the midpoint of the shoulders."""
    truth = person()
    assert person_sizes(truth, "box")[0, 0] == pytest.approx(100.0)
    assert person_sizes(truth, "torso")[0, 0] == pytest.approx(CROSS)
    assert person_sizes(truth, "head")[0, 0] == pytest.approx(10.0)


def test_torso_is_the_mean_of_the_sides_in_sight():
    """The left hip moves 32 px right: its diagonal is 78 long; with a shoulder hidden only one side counts."""
    longer = person(left_hip=(72.0, 30.0))
    assert person_sizes(longer, "torso")[0, 0] == pytest.approx((78.0 + CROSS) / 2)
    assert person_sizes(person(left_hip=(72.0, 30.0), hidden=("left_shoulder",)), "torso")[0, 0] == pytest.approx(78.0)
    assert person_sizes(person(hidden=("left_hip", "right_hip")), "torso")[0, 0] == 0.0


def test_head_needs_both_shoulders_and_takes_the_centre_of_the_face():
    """Eyes at -30 and nose at -10: centre at (30, -70/3)."""
    truth = person(left_eye=(35.0, -30.0), right_eye=(25.0, -30.0))
    assert person_sizes(truth, "head")[0, 0] == pytest.approx(70 / 3)
    assert person_sizes(person(hidden=("left_shoulder",)), "head")[0, 0] == 0.0
    assert person_sizes(person(hidden=("nose",)), "head")[0, 0] == 0.0


def test_the_normaliser_decides_what_is_near_enough():
    """A knee off by 9 pixels: within 0.1 of the box (10 px), beyond 0.1 of the torso (5 px) and of the head (1 px)."""
    found, truth = person(left_knee=(69.0, 70.0)), person()
    assert count_correct(found, truth, (0.1,)).accuracy(0.1) == 1.0
    assert count_correct(found, truth, (0.1,), "torso").accuracy(0.1) == pytest.approx(6 / 7)
    assert count_correct(found, truth, (1.0, 0.9), "head").accuracy(0.9) == 1.0
    assert count_correct(found, truth, (0.1,), "torso").mean_error_diagonal == pytest.approx(9 / 50 / 7)


def test_people_without_a_size_count_nothing():
    """No hip in sight: there is no torso, but still a box."""
    truth = person(hidden=("left_hip", "right_hip"))
    assert count_correct(truth, truth, (0.1,), "torso").visible.sum() == 0
    assert count_correct(truth, truth, (0.1,)).visible.sum() == 5


def test_exchanged_sides_are_told_from_other_misses():
    """Knees exchanged (60 px apart) are swapped; a shoulder 60 px above its place is not; hips lie within the limit."""
    found = person(
        left_knee=BODY["right_knee"], right_knee=BODY["left_knee"], left_hip=BODY["right_hip"],
        right_hip=BODY["left_hip"], left_shoulder=(60.0, -60.0),
    )  # fmt: skip
    errors = joint_errors(found, person())
    joints = np.array(COCO17.joints)
    assert set(joints[errors.swapped(0.2)[0, 0]]) == {"left_knee", "right_knee"}
    assert set(joints[errors.counted[0, 0] & ~errors.hits(0.2)[0, 0]]) == {"left_knee", "right_knee", "left_shoulder"}
    assert set(joints[errors.swapped(0.1)[0, 0]]) == {"left_knee", "right_knee", "left_hip", "right_hip"}
    assert not joint_errors(person(nose=(500.0, 0.0)), person()).swapped(0.2).any()


def test_extra_and_missing_people_are_counted():
    """Two found for one, and one found for two; the one in place is matched."""
    far = {name: (x + 300, y) for name, (x, y) in BODY.items()}
    both, one = person(far), person()
    assert joint_errors(both, one).extra.tolist() == [1]
    missing = joint_errors(one, both)
    assert missing.extra.tolist() == [0] and missing.partner.tolist() == [[0, -1]]
    assert missing.present.all() and np.isnan(missing.distance_px[0, 1]).all()
    nobody = joint_errors(Keypoints(one.xy, 0 * one.score, one.track_id), one)
    assert nobody.partner.tolist() == [[-1]] and nobody.counted.sum() == 7 and not nobody.hits(9.0).any()
