"""Bootstrap intervals over clips: how much a score would change with other clips of the same kind.

Clips, not joints, are drawn again with replacement, because the joints of one clip succeed or fail together
(percentile method: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). The interval says
nothing about other training seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Real

RESAMPLES = 4000
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval; the sign of the value is then beyond the chance of the clips."""
        return self.low > 0 or self.high < 0


def ratio_estimate(
    correct: Real[np.ndarray, " N"], visible: Real[np.ndarray, " N"], *, seed: int, resamples: int = RESAMPLES
) -> Estimate:
    """Micro average sum(correct) / sum(visible) over N clips; NaN where nothing is visible.

    Args:
        correct: joints found, or a sum over joints, per clip; or what else is counted.
        visible: joints to be found, per clip; or the sum of what else is counted by.
        seed: of the resampling.
        resamples: bootstrap draws.
    """
    if not visible.any():
        return Estimate(math.nan, math.nan, math.nan)
    weights = clip_draws(len(visible), seed, resamples)
    return estimate(correct.sum() / visible.sum(), _ratios(weights, correct, visible))


def mean_estimate(values: Float[np.ndarray, " N"], *, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Mean over N clips; clips without a value (NaN) are left out, NaN if none is left."""
    known = np.isfinite(values)
    return ratio_estimate(np.where(known, values, 0.0), known.astype(np.int64), seed=seed, resamples=resamples)


def paired_difference_estimate(
    correct_a: Int[np.ndarray, " N"],
    correct_b: Int[np.ndarray, " N"],
    visible: Int[np.ndarray, " N"],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Micro average of b less that of a over the same N clips; each draw takes the same clips of both.

    Args:
        correct_a: joints found by a, per clip.
        correct_b: joints found by b, per clip.
        visible: joints to be found, per clip; not all zero.
        seed: of the resampling.
        resamples: bootstrap draws.
    """
    weights = clip_draws(len(visible), seed, resamples)
    gains = correct_b - correct_a
    return estimate(gains.sum() / visible.sum(), _ratios(weights, gains, visible))


def clip_draws(count: int, seed: int, resamples: int = RESAMPLES) -> Int[np.ndarray, "R N"]:
    """How often each clip is drawn in each resample."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1.0 / count), size=resamples)


def _ratios(weights: np.ndarray, part: np.ndarray, whole: np.ndarray) -> Float[np.ndarray, " R"]:
    wholes = weights @ whole
    # A draw of nothing but clips without visible joints has no ratio; it is left out.
    defined = wholes > 0
    ratios: np.ndarray = (weights @ part)[defined] / wholes[defined]
    return ratios


def estimate(value: float, draws: Float[np.ndarray, " R"]) -> Estimate:
    """A number with the interval of its values in the draws."""
    low, high = np.percentile(draws, _PERCENTILES)
    return Estimate(float(value), float(low), float(high))
