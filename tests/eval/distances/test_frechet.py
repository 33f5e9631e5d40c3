"""Frechet distance against closed forms and scipy's matrix square root."""

import numpy as np
import pytest
import scipy.linalg

from eval.distances.frechet import FeatureStatistics, frechet_distance
from lisa_video.errors import UserError


def statistics(features: np.ndarray) -> FeatureStatistics:
    """Statistics of all rows at once."""
    result = FeatureStatistics(features.shape[1])
    result.update(features)
    return result


def whitened(count: int, dimension: int, seed: int) -> np.ndarray:
    """Rows whose mean is 0 and whose unbiased covariance is the identity, both to rounding."""
    rows = np.random.default_rng(seed).normal(size=(count, dimension))
    rows -= rows.mean(axis=0)
    orthogonal, _ = np.linalg.qr(rows)
    return orthogonal * np.sqrt(count - 1)


def test_mean_and_covariance_agree_with_numpy() -> None:
    """Fed in three unequal batches, far from zero, as float32."""
    rows = (np.random.default_rng(0).normal(size=(50, 6)) + 1000).astype(np.float32)
    streamed = FeatureStatistics(6)
    for part in (rows[:1], rows[1:20], rows[20:]):
        streamed.update(part)
    exact = rows.astype(np.float64)
    np.testing.assert_allclose(streamed.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(streamed.covariance("unbiased"), np.cov(exact.T), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(streamed.covariance("population"), np.cov(exact.T, ddof=0), rtol=1e-9, atol=1e-12)


def test_merging_parts_equals_the_whole() -> None:
    """Parts of different size, one of them empty."""
    rows = np.random.default_rng(1).normal(size=(40, 5)) * np.arange(1, 6)
    whole, merged = statistics(rows), statistics(rows[:7])
    merged.merge(FeatureStatistics(5))
    merged.merge(statistics(rows[7:]))
    assert merged.count == 40
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.covariance("unbiased"), whole.covariance("unbiased"), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("count", [200, 10])
def test_a_set_is_at_distance_zero_of_itself(count: int) -> None:
    """Also with fewer clips than dimensions, where the covariance is singular."""
    rows = np.random.default_rng(2).normal(size=(count, 64)) * 3
    assert frechet_distance(statistics(rows), statistics(rows)) == pytest.approx(0.0, abs=1e-9)


def test_a_shift_costs_its_squared_length() -> None:
    """Equal covariances: d² = |shift|² = 9 + 16."""
    rows = np.random.default_rng(3).normal(size=(30, 4))
    shifted = rows + np.array([3.0, 0.0, -4.0, 0.0])
    assert frechet_distance(statistics(rows), statistics(shifted)) == pytest.approx(25.0, abs=1e-9)


def test_diagonal_covariances_have_a_closed_form() -> None:
    """d² = sum (s - t)² for standard deviations s and t: (1-2)² + (3-3)² + (5-1)² = 17."""
    base = whitened(60, 3, seed=4)
    a, b = base * np.array([1.0, 3.0, 5.0]), base * np.array([2.0, 3.0, 1.0])
    assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(17.0, abs=1e-9)


@pytest.mark.parametrize("kind", ["unbiased", "population"])
def test_agrees_with_scipys_matrix_square_root(kind) -> None:
    """General covariances that do not commute, both divisors."""
    generator = np.random.default_rng(5)
    a = generator.normal(size=(80, 5)) @ generator.normal(size=(5, 5)) + 1
    b = generator.normal(size=(90, 5)) @ generator.normal(size=(5, 5))
    ddof = 1 if kind == "unbiased" else 0
    first, second = np.cov(a.T, ddof=ddof), np.cov(b.T, ddof=ddof)
    root = scipy.linalg.sqrtm(first @ second).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(first + second - 2 * root)
    assert frechet_distance(statistics(a), statistics(b), kind) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(statistics(b), statistics(a), kind) == pytest.approx(expected, rel=1e-9)


def test_agrees_with_cd_fvd():
    """Values of cd-fvd 0.1.1 with scipy 1.17.1 for these float32 features, computed once and written down here.

    `FeatureStats` and `cdfvd.compute_fvd_from_stats` divide by N; `frechet_distance` of its I3D, in float64, by N - 1.
    """
    generator = np.random.default_rng(11)
    a = (generator.normal(size=(60, 8)) @ generator.normal(size=(8, 8)) + 1).astype(np.float32)
    b = (generator.normal(size=(50, 8)) @ generator.normal(size=(8, 8))).astype(np.float32)
    assert frechet_distance(statistics(a), statistics(b), "population") == pytest.approx(26.665445924468294, rel=1e-9)
    assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(27.02356260115198, rel=1e-9)


def test_faults_of_the_input_are_explained() -> None:
    """Other dimensions, NaN, and too few clips."""
    five = statistics(np.eye(5))
    with pytest.raises(UserError, match="3 dimensions, expected 5"):
        five.update(np.zeros((1, 3)))
    with pytest.raises(UserError, match="dimensions"):
        five.merge(FeatureStatistics(4))
    with pytest.raises(UserError, match="dimensions"):
        frechet_distance(five, statistics(np.eye(4)))
    with pytest.raises(UserError, match=r"1 of 2 clips .* not finite"):
        five.update(np.array([[1.0] * 5, [np.nan] * 5]))
    with pytest.raises(UserError, match="at least 2 clips, got 1"):
        frechet_distance(five, statistics(np.ones((1, 5))))
    assert five.count == 5, "a refused batch must leave no trace"
