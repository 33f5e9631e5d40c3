"""Bootstrap intervals against scipy's bootstrap and against cases without any spread."""

import numpy as np
import pytest
import scipy.stats

from eval.bootstrap import Estimate, paired_difference_estimate, ratio_estimate

GENERATOR = np.random.default_rng(0)
VISIBLE = GENERATOR.integers(100, 250, size=40)
CORRECT = GENERATOR.binomial(VISIBLE, GENERATOR.uniform(0.2, 0.9, size=40))


def test_interval_agrees_with_scipys() -> None:
    """Percentile bootstrap of a ratio of sums over paired samples."""
    ours = ratio_estimate(CORRECT, VISIBLE, seed=1)
    theirs = scipy.stats.bootstrap(
        (CORRECT, VISIBLE), lambda c, v, axis: c.sum(axis) / v.sum(axis), paired=True, vectorized=True,
        method="percentile", n_resamples=4000, rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    assert ours.value == CORRECT.sum() / VISIBLE.sum()
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)


def test_clips_that_are_all_alike_have_no_spread() -> None:
    """Every draw of clips gives one half."""
    estimate = ratio_estimate(np.full(9, 5), np.full(9, 10), seed=0)
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.5, 0.5)


def test_a_constant_gain_has_no_spread_although_the_clips_differ() -> None:
    """Pairing removes the spread between clips: b finds 3 joints of 30 more in every clip."""
    correct = np.array([0, 5, 12, 27])
    gain = paired_difference_estimate(correct, correct + 3, np.full(4, 30), seed=0)
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.1, 0.1, 0.1))


def test_same_seed_same_interval() -> None:
    """And another seed gives another one."""
    assert ratio_estimate(CORRECT, VISIBLE, seed=3) == ratio_estimate(CORRECT, VISIBLE, seed=3)
    assert ratio_estimate(CORRECT, VISIBLE, seed=3) != ratio_estimate(CORRECT, VISIBLE, seed=4)


def test_draws_without_visible_joints_are_left_out() -> None:
    """One of two clips shows nobody; drawn twice it has no ratio."""
    estimate = ratio_estimate(np.array([3, 0]), np.array([4, 0]), seed=0)
    assert (estimate.low, estimate.high) == (0.75, 0.75)


def test_excluding_zero_needs_both_ends_on_one_side() -> None:
    """Touching zero is not excluding it."""
    assert Estimate(0.2, 0.1, 0.3).excludes_zero and Estimate(-0.2, -0.3, -0.1).excludes_zero
    assert not Estimate(0.1, 0.0, 0.3).excludes_zero and not Estimate(0.1, -0.1, 0.3).excludes_zero
