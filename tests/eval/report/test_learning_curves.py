"""Learning curves and speed-up against values worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eval.report.learning_curves import LearningCurve, above_floor, difference, final_difference, first_step, speed_up
from lisa_video.errors import UserError

STEPS = np.array([0, 100, 200, 400])


def curve(arm: str, accuracy: list[list[float]], clips: int = 20) -> LearningCurve:
    """Seeds x checkpoints -> a curve in which every clip has the same accuracy of 100 joints."""
    correct = np.round(100 * np.array(accuracy))[:, :, None].repeat(clips, axis=2).astype(int)
    return LearningCurve(arm, STEPS, tuple(range(len(accuracy))), correct, np.full(clips, 100))


def test_first_step_is_interpolated():
    accuracy = np.array([0.2, 0.2, 0.4, 0.8])
    assert first_step(STEPS, accuracy, 0.2) == 0
    assert first_step(STEPS, accuracy, 0.3) == 150
    assert first_step(STEPS, accuracy, 0.6) == 300
    assert first_step(STEPS, accuracy, 0.9) is None


def test_speed_up_is_the_ratio_of_steps_to_the_baselines_last_value():
    slow, fast = curve("a", [[0.2, 0.2, 0.3, 0.4]]), curve("b", [[0.2, 0.4, 0.5, 0.5]])
    result = speed_up(slow, fast)
    assert (result.target, result.baseline_steps, result.arm_steps) == (pytest.approx(0.4), 400, 100)
    assert result.ratio.value == pytest.approx(4) and result.reached == 1
    assert result.ratio.low == pytest.approx(4) and result.ratio.high == pytest.approx(4)  # all clips are alike
    assert speed_up(slow, slow).ratio.value == 1


def test_a_curve_can_be_judged_as_if_it_had_ended_earlier():
    slow, fast = curve("a", [[0.2, 0.2, 0.3, 0.4]]), curve("b", [[0.2, 0.2, 0.4, 0.4]])
    assert fast.until(250).steps.tolist() == [0, 100, 200] and fast.until(400).values.tolist() == fast.values.tolist()
    assert speed_up(slow.until(200), fast.until(200)).ratio.value == pytest.approx(200 / 150)
    assert speed_up(slow, fast).ratio.value == pytest.approx(400 / 200)


def test_an_arm_that_never_gets_there_has_no_ratio():
    result = speed_up(curve("a", [[0.2, 0.2, 0.3, 0.4]]), curve("b", [[0.2, 0.2, 0.2, 0.3]]))
    assert result.arm_steps is None and result.ratio is None and result.reached == 0


def test_a_baseline_that_never_leaves_the_floor_makes_nobody_faster():
    result = speed_up(curve("a", [[0.2, 0.2, 0.2, 0.2]]), curve("b", [[0.2, 0.4, 0.5, 0.5]]))
    assert result.ratio.value == 1 and result.arm_steps == 0


def test_the_interval_knows_of_seeds():
    slow = curve("a", [[0.2, 0.2, 0.3, 0.4]] * 3)
    unsure = curve("b", [[0.2, 0.4, 0.5, 0.5], [0.2, 0.25, 0.3, 0.4], [0.2, 0.2, 0.2, 0.3]])
    result = speed_up(slow, unsure)
    assert result.ratio.low < 1 < result.ratio.high and 0.5 < result.reached < 1
    low, high = unsure.band()
    assert (low <= unsure.values).all() and (unsure.values <= high).all() and low[-1] < high[-1]
    assert np.allclose(unsure.values, unsure.values_per_seed.mean(axis=0))


def test_what_arms_share_is_no_doubt_about_their_difference():
    """Clips from 0 % to 95 %: the level is unsure, but one arm is 0.05 above the other on every clip."""
    found = np.arange(20)[None, None].repeat(4, axis=1) * 5
    whole = np.full(20, 100)
    one, other = (LearningCurve(n, STEPS, (0,), found + more, whole) for n, more in (("a", 0), ("b", 5)))
    low, high = one.band()
    assert high[0] - low[0] > 0.2
    gap = difference(one, other)
    assert np.allclose([gap.value, gap.low, gap.high], 0.05)


def test_the_difference_is_as_unsure_as_seeds_make_it():
    gap = difference(curve("a", [[0.2, 0.2, 0.3, 0.4]] * 2), curve("b", [[0.2, 0.3, 0.3, 0.5], [0.2, 0.1, 0.3, 0.7]]))
    assert np.allclose(gap.value, [0, 0, 0, 0.2])
    assert np.allclose(gap.low, [0, -0.1, 0, 0.1]) and np.allclose(gap.high, [0, 0.1, 0, 0.3])


def test_control_is_there_once_all_seeds_have_left_the_floor():
    gain = above_floor(curve("a", [[0.2, 0.2, 0.3, 0.4], [0.2, 0.1, 0.4, 0.6]]))
    assert gain.value == pytest.approx([0, -0.05, 0.15, 0.3])
    assert gain.low[0] == gain.high[0] == 0 and gain.low[1] < 0 <= gain.high[1]
    assert gain.low[2:] == pytest.approx([0.1, 0.2]) and gain.high[2:] == pytest.approx([0.2, 0.4])


def test_arms_are_compared_where_both_were_scored():
    late = curve("a", [[0.2, 0.2, 0.3, 0.4]])
    early = LearningCurve("b", STEPS[[0, 2]], (0,), late.part[:, [0, 2]] + 2, late.whole)
    gap = difference(late, early)
    assert gap.steps.tolist() == STEPS[[0, 2]].tolist()
    assert np.allclose([gap.value, gap.low, gap.high], 2 * 20 / late.whole.sum())
    other = LearningCurve("b", STEPS[[0, 2]] + [0, 1], (0,), late.part[:, [0, 2]], late.whole)
    assert difference(late, other).steps.tolist() == [0] and difference(late, other).value.tolist() == [0]


def test_arms_are_compared_at_their_ends_wherever_these_are():
    late = curve("a", [[0.2, 0.2, 0.3, 0.4], [0.2, 0.2, 0.3, 0.5]])
    early = replace(curve("b", [[0.2, 0.3, 0.5, 0.5], [0.2, 0.3, 0.8, 0.8]]).until(200), steps=np.array([0, 10, 20]))
    gap = final_difference(late, early)
    assert [gap.value, gap.low, gap.high] == pytest.approx([0.2, 0.1, 0.3])  # of the seeds: 0.1 and 0.3


def test_clips_count_by_their_joints():
    correct = np.array([[[0, 0], [10, 0], [10, 0], [10, 30]]])
    one = LearningCurve("a", STEPS, (0,), correct, np.array([10, 30]))
    assert np.allclose(one.values, [0, 0.25, 0.25, 1])


def test_a_loss_is_reached_from_above():
    """The baseline ends at 0.6 after 400 steps; the arm is at 0.6 half way between 100 (0.7) and 200 (0.5)."""

    def losses(name: str, values: list[float]) -> LearningCurve:
        part = np.array(values)[None, :, None].repeat(5, axis=2)
        return LearningCurve(name, STEPS, (0,), part, np.ones(5, int), lower_is_better=True, percent=False)

    result = speed_up(losses("a", [1.0, 0.9, 0.8, 0.6]), losses("b", [1.0, 0.7, 0.5, 0.5]))
    assert result.arm_steps == pytest.approx(150) and result.ratio.value == pytest.approx(400 / 150)
    assert speed_up(losses("a", [1.0, 0.9, 0.8, 0.6]), losses("b", [1.0, 0.9, 0.9, 0.7])).ratio is None


def test_unpaired_arms_are_refused():
    with pytest.raises(UserError, match="same seeds"):
        speed_up(curve("a", [[0.2, 0.2, 0.3, 0.4]]), curve("b", [[0.2, 0.2, 0.3, 0.4]] * 2))
    with pytest.raises(ValueError, match="rise from 0"):
        LearningCurve("a", STEPS[1:], (0,), np.zeros((1, 3, 2), int), np.ones(2, int))
