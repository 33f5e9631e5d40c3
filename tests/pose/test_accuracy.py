"""PCK against values worked out by hand: a box of 30 x 40 pixels, whose diagonal is 50."""

import numpy as np
import pytest

from lisa_video.pose.accuracy import PCKCounts, count_correct, total
from lisa_video.pose.keypoints import Keypoints

NOSE, LEFT_EYE, RIGHT_EYE, LEFT_EAR = 0, 1, 2, 3


def poses(*people: dict[int, tuple[float, float]], hidden: tuple[int, ...] = ()) -> Keypoints:
    """One frame; joints that are not named are unknown."""
    xy = np.full((1, len(people), 17, 2), np.nan, np.float32)
    score = np.zeros((1, len(people), 17), np.float32)
    for person, joints in enumerate(people):
        for joint, place in joints.items():
            xy[0, person, joint] = place
            score[0, person, joint] = 0.4 if joint in hidden else 1.0
    return Keypoints(xy, score, np.arange(len(people)))


TRUE = {NOSE: (10.0, 10.0), LEFT_EYE: (40.0, 50.0), RIGHT_EYE: (20.0, 20.0)}


def test_distances_are_compared_with_fractions_of_the_diagonal() -> None:
    """Errors of 2, 4 and 11 pixels against limits of 2.5, 5 and 10."""
    found = poses({NOSE: (10.0, 12.0), LEFT_EYE: (44.0, 50.0), RIGHT_EYE: (31.0, 20.0)})
    counts = count_correct(found, poses(TRUE), (0.05, 0.1, 0.2))
    assert counts.correct.sum(axis=(1, 2)).tolist() == [1, 2, 2]
    assert counts.accuracy(0.1) == pytest.approx(2 / 3)
    assert counts.mean_error_px == pytest.approx(17 / 3)
    assert counts.mean_error_diagonal == pytest.approx(17 / 3 / 50)
    per_joint = counts.accuracy_per_joint(0.1)
    assert per_joint[:3].tolist() == [1.0, 1.0, 0.0]
    assert np.isnan(per_joint[3:]).all()


def test_the_limit_itself_is_correct() -> None:
    """An error of exactly 5 pixels at a limit of 0.1 x 50."""
    found = poses({**TRUE, NOSE: (13.0, 14.0)})
    assert count_correct(found, poses(TRUE), (0.1,)).accuracy(0.1) == 1.0
    assert count_correct(poses({**TRUE, NOSE: (13.0, 14.01)}), poses(TRUE), (0.1,)).accuracy(0.1) == pytest.approx(
        2 / 3
    )


def test_hidden_true_joints_neither_count_nor_widen_the_box() -> None:
    """A hidden ear far away would make the diagonal 200 and the wrong eye correct."""
    truth = poses({**TRUE, LEFT_EAR: (10.0, 210.0)}, hidden=(LEFT_EAR,))
    found = poses({**TRUE, RIGHT_EYE: (31.0, 20.0), LEFT_EAR: (10.0, 210.0)})
    counts = count_correct(found, truth, (0.2,))
    assert counts.visible.sum() == 3
    assert counts.correct.sum() == 2


def test_unknown_predicted_joint_is_a_miss_without_an_error() -> None:
    """The nose is not found at all."""
    found = poses({LEFT_EYE: TRUE[LEFT_EYE], RIGHT_EYE: TRUE[RIGHT_EYE]})
    counts = count_correct(found, poses(TRUE), (0.1,))
    assert (counts.correct.sum(), counts.visible.sum(), counts.located.sum()) == (2, 3, 2)
    assert counts.mean_error_px == 0.0


def test_a_low_score_of_a_predicted_joint_does_not_matter() -> None:
    """Only the place of a predicted joint is judged."""
    found = poses(TRUE, hidden=(NOSE,))
    assert count_correct(found, poses(TRUE), (0.1,)).accuracy(0.1) == 1.0


def test_people_are_matched_by_box_not_by_order() -> None:
    """Two people, predicted in the other order; a greedy match of the first would fail the second."""
    other = {joint: (x + 100.0, y) for joint, (x, y) in TRUE.items()}
    counts = count_correct(poses(other, TRUE), poses(TRUE, other), (0.05,))
    assert (counts.correct.sum(), counts.visible.sum()) == (6, 6)


def test_assignment_is_optimal_not_greedy() -> None:
    """Boxes on a line, as high as wide: true A = [0,10], B = [6,16]; predicted p = [5,15], q = [8,18].

    The best pair is B-p (IoU 9/11), but then A-q (2/18) makes 0.93; A-p (5/15) with B-q (8/12) makes 1.00.
    """

    def square(left: float) -> dict[int, tuple[float, float]]:
        return {NOSE: (left, 0.0), LEFT_EYE: (left + 10, 10.0)}

    counts = count_correct(poses(square(8), square(5)), poses(square(0), square(6)), (0.4,))
    # Limit 0.4 x 10 sqrt(2) = 5.7: A-p is off by 5 and B-q by 2, all correct; A-q would be off by 8.
    assert counts.correct.sum() == 4


def test_unmatched_true_people_are_misses_and_extra_predictions_cost_nothing() -> None:
    """Two true people with one prediction, and the reverse."""
    other = {joint: (x + 100.0, y) for joint, (x, y) in TRUE.items()}
    assert count_correct(poses(TRUE), poses(TRUE, other), (0.1,)).accuracy(0.1) == 0.5
    assert count_correct(poses(TRUE, other), poses(TRUE), (0.1,)).accuracy(0.1) == 1.0


def test_a_predicted_person_without_visible_joints_is_not_there() -> None:
    """The place is right, but the detector says that it saw nobody."""
    counts = count_correct(poses(TRUE, hidden=tuple(TRUE)), poses(TRUE), (0.1,))
    assert (counts.correct.sum(), counts.visible.sum()) == (0, 3)


def test_frames_without_a_box_count_nothing() -> None:
    """No visible joint, or a single one whose box has no diagonal."""
    for truth in (poses(TRUE, hidden=tuple(TRUE)), poses({NOSE: (10.0, 10.0)})):
        counts = count_correct(poses(TRUE), truth, (0.1,))
        assert counts.visible.sum() == 0
        assert np.isnan(counts.accuracy(0.1)) and np.isnan(counts.mean_error_px)


def test_counts_add_up_and_weigh_joints_not_clips() -> None:
    """3 of 3 in one clip and 0 of 2 in another are 3 of 5, not the mean of 1 and 0; clip lengths may differ."""
    good = count_correct(poses(TRUE), poses(TRUE), (0.1,))
    pair = {NOSE: TRUE[NOSE], LEFT_EYE: TRUE[LEFT_EYE]}
    far = {joint: (x + 40.0, y) for joint, (x, y) in pair.items()}
    one = count_correct(poses(far), poses(pair), (0.1,))
    bad = PCKCounts.zero((0.1,), 1, 17) + one
    longer = PCKCounts.zero((0.1,), 2, 17)
    both = total([longer, good, bad])
    assert both.accuracy(0.1) == pytest.approx(3 / 5)
    assert both.accuracy_per_frame(0.1)[0] == pytest.approx(3 / 5)
    assert np.isnan(both.accuracy_per_frame(0.1)[1])
    assert both.mean_error_px == pytest.approx(80 / 5)


def test_json_keeps_everything() -> None:
    """Through JSON text and back, the counts answer the same."""
    counts = count_correct(poses({**TRUE, NOSE: (10.0, 12.0)}), poses(TRUE))
    again = PCKCounts.from_json(counts.to_json())
    assert again.thresholds == (0.05, 0.1, 0.2)
    for name in ("correct", "visible", "located", "error_px", "error_diagonal"):
        np.testing.assert_array_equal(getattr(again, name), getattr(counts, name))


def test_misuse_is_refused() -> None:
    """Other thresholds cannot be added or asked for; clips of other lengths cannot be compared."""
    counts = count_correct(poses(TRUE), poses(TRUE), (0.1,))
    with pytest.raises(ValueError, match="cannot be added"):
        counts + PCKCounts.zero((0.2,), 1, 17)
    with pytest.raises(ValueError, match="was not counted"):
        counts.accuracy(0.2)
    with pytest.raises(ValueError, match="frames"):
        count_correct(poses(TRUE), poses(TRUE).frames(np.array([0, 0])))
