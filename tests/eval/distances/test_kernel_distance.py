"""Kernel distance against a double loop, and against sets of which the answer is known."""

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from eval.distances import kernel_distance as module
from eval.distances.kernel_distance import kernel_distance, paired_kernel_distance
from lisa_video.errors import UserError


def naive(real: np.ndarray, fake: np.ndarray) -> float:
    """Equation 3 of Gretton et al. 2012, written out."""

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    n, m = len(real), len(fake)
    first = sum(k(real[i], real[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    second = sum(k(fake[i], fake[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return first + second - 2 * sum(k(x, y) for x in real for y in fake) / (n * m)


@pytest.fixture(scope="module")
def sets() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(7, 3)), generator.normal(size=(9, 3)) * 1.5 + 0.5


def test_value_and_error_agree_with_a_double_loop(sets, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 4)  # several blocks of unequal size
    real, fake = sets
    found = kernel_distance(real, fake)
    assert found.value == pytest.approx(naive(real, fake), rel=1e-12)
    variance = 0.0
    for which, count in ((0, 7), (1, 9)):
        without = []
        for left_out in range(count):
            parts = list(sets)
            parts[which] = np.delete(parts[which], left_out, axis=0)
            without.append(naive(*parts))
        variance += (count - 1) / count * np.sum((np.array(without) - np.mean(without)) ** 2)
    assert found.error == pytest.approx(np.sqrt(variance), rel=1e-9)


def test_agrees_with_torchmetrics():
    """Its unbiased polynomial MMD of two sets of equal size, as KID takes it of each subset."""
    generator = np.random.default_rng(2)
    real, fake = generator.normal(size=(30, 12)), generator.normal(size=(30, 12)) * 1.2 + 0.3
    expected = poly_mmd(torch.from_numpy(real), torch.from_numpy(fake), degree=3, gamma=None, coef=1.0)
    assert kernel_distance(real, fake).value == pytest.approx(float(expected), rel=1e-9)


def test_no_bias_however_few_the_clips():
    """Mean of 300 distances of equal distributions: 0 within its error. Taking pairs with themselves would give 3.6."""
    generator = np.random.default_rng(1)
    values = [kernel_distance(generator.normal(size=(6, 4)), generator.normal(size=(5, 4))).value for _ in range(300)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(300) < 0.3


def test_pairs_leave_partners_out():
    """Against the double loop over different rows; and clips that hardly differ from their partners are at no distance,
    where the plain distance is far below zero."""
    generator = np.random.default_rng(3)
    real = generator.normal(size=(8, 3))
    fake = real * 1.3 + generator.normal(size=(8, 3)) * 0.2

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return (x @ y / 3 + 1) ** 3

    def loop(rows: list[int]) -> float:
        terms = [
            k(real[i], real[j]) + k(fake[i], fake[j]) - k(real[i], fake[j]) - k(real[j], fake[i])
            for i in rows for j in rows if i != j
        ]  # fmt: skip
        return float(np.mean(terms))

    found = paired_kernel_distance(real, fake)
    assert found.value == pytest.approx(loop(list(range(8))), rel=1e-12)
    without = np.array([loop([i for i in range(8) if i != left_out]) for left_out in range(8)])
    assert found.error == pytest.approx(np.sqrt(7 / 8 * np.sum((without - without.mean()) ** 2)), rel=1e-9)
    assert paired_kernel_distance(real, real).value == pytest.approx(0, abs=1e-12)
    assert kernel_distance(real, real).value < -0.5


def test_a_shift_has_a_known_expectation():
    """One dimension, x = 0 and y = c always: k = 1, (c² + 1)³ and 1, so the distance is (c² + 1)³ - 1."""
    assert kernel_distance(np.zeros((4, 1)), np.full((3, 1), 2.0)).value == pytest.approx(5**3 - 1)


def test_two_clips_have_a_value_but_no_error_and_one_has_none():
    assert np.isnan(kernel_distance(np.eye(2), np.eye(2)).error)
    with pytest.raises(UserError, match="at least 2 clips of each set, got 1 and 2"):
        kernel_distance(np.eye(2)[:1], np.eye(2))
