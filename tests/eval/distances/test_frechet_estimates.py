"""Spread, floor and extrapolation of the Frechet distance on normal distributions, where the answers are known."""

import numpy as np
import pytest
import scipy.linalg

from eval.distances.frechet import FeatureStatistics, frechet_distance, frechet_of_features
from eval.distances.frechet_estimates import frechet_infinite, frechet_interval, real_floor

SHIFT, STRETCH, DIMENSION = 0.5, 1.3, 6
TRUE = DIMENSION * (SHIFT**2 + (STRETCH - 1) ** 2)


def draw(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal rows, and shifted and stretched ones: their distance is `TRUE`."""
    real, fake = generator.normal(size=(2, count, DIMENSION))
    return real, fake * STRETCH + SHIFT


@pytest.mark.parametrize("count", [4, 40])
def test_from_rows_and_from_moments_it_is_the_same(count):
    """Also with fewer clips than dimensions; and the same as with scipy's matrix square root."""
    a, b = draw(count, np.random.default_rng(0))
    statistics = []
    for rows in (a, b):
        statistics.append(FeatureStatistics(DIMENSION))
        statistics[-1].update(rows)
    assert frechet_of_features(a, b) == pytest.approx(frechet_distance(*statistics), rel=1e-9)
    first, second = np.cov(a.T), np.cov(b.T)
    if count > DIMENSION:
        root = scipy.linalg.sqrtm(first @ second).real
        expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(first + second - 2 * root)
        assert frechet_of_features(a, b) == pytest.approx(expected, rel=1e-9)


def test_interval_holds_the_distances_of_other_clips_of_the_same_number():
    """Around each of 40 distances of 50 clips lies an interval; at least 90 % hold the mean of all 40."""
    generator = np.random.default_rng(1)
    found = [frechet_interval(*draw(50, generator), seed=0, draws=60) for _ in range(40)]
    centre = np.mean([one.value for one in found])
    assert centre > TRUE + 0.2, "the bias of small sets"
    assert np.mean([one.low <= centre <= one.high for one in found]) >= 0.9
    spread = np.std([one.value for one in found])
    assert 0.7 < np.mean([one.high - one.low for one in found]) / (2 * 1.96 * spread) < 1.6


def test_infinite_takes_the_bias_away():
    """Mean over 30 pairs of sets of 40 clips; the plain distance is far outside of what is left."""
    generator = np.random.default_rng(2)
    pairs = [draw(40, generator) for _ in range(30)]
    plain = np.array([frechet_of_features(*pair) for pair in pairs])
    found = np.array([frechet_infinite(*pair, seed=0).value for pair in pairs])
    error = found.std() / np.sqrt(len(found))
    assert abs(found.mean() - TRUE) < 3 * error
    assert plain.mean() - TRUE > 6 * plain.std() / np.sqrt(len(plain))


def test_infinite_ends_with_the_distance_of_all_clips_and_follows_the_seed():
    real, fake = draw(40, np.random.default_rng(3))
    found = frechet_infinite(real, fake, seed=5, points=4)
    assert found.shares == pytest.approx([1 / 2, 2 / 3, 5 / 6, 1])
    assert found.distances[-1] == pytest.approx(frechet_of_features(real, fake))
    assert frechet_infinite(real, fake, seed=5, points=4) == found != frechet_infinite(real, fake, seed=6, points=4)


def test_floor_is_the_distance_of_halves():
    """Two values, -1 and 1, ten times each; a split with k and 10 - k ones has means 2k/10 - 1 and its negative."""
    rows = np.repeat([[-1.0], [1.0]], 10, axis=0)
    order = np.random.default_rng((7, 0)).permutation(20)
    ones = int((order[::2] >= 10).sum())
    assert real_floor(rows, seed=7, splits=1) == pytest.approx((2 * (2 * ones / 10 - 1)) ** 2)
    assert np.isnan(real_floor(rows[:3], seed=0))
