"""Kernel distance between two sets of features: unbiased for any number of clips, unlike the Frechet distance.

    MMD² = mean k(x, x') + mean k(y, y') - 2 mean k(x, y),   k(x, y) = (x·y / D + 1)³,   over different clips

Source: Gretton et al., "A kernel two-sample test", 2012, equation 3; with this kernel Binkowski et al., "Demystifying
MMD GANs", 2018, as a score of pictures (KID). KID averages it over random subsets because of memory; here all pairs
are taken, block by block, which has the same expectation, less spread, and no seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lisa_video.errors import UserError

_BLOCK = 2048  # rows of the kernel matrix at a time


@dataclass(frozen=True)
class KernelDistance:
    """A squared distance, which may be negative for sets that are nearly alike.

    Attributes:
        value: unbiased estimate.
        error: its standard error over clips, by the jackknife (Efron and Tibshirani 1993, chapter 11).
    """

    value: float
    error: float


def kernel_distance(real: Float[np.ndarray, "N D"], fake: Float[np.ndarray, "M D"]) -> KernelDistance:
    """Unbiased squared distance with its standard error (NaN where a set has only two clips).

    Args:
        real: features.
        fake: features of the same dimension.

    Raises:
        UserError: fewer than two clips in a set.
    """
    _require_two(real, fake)
    within_real, within_fake = _similarity_to_others(real), _similarity_to_others(fake)
    across_real, across_fake = _similarity(real, fake), _similarity(fake, real)
    value = _mean_of_pairs(within_real) + _mean_of_pairs(within_fake) - 2.0 * across_real.mean() / len(fake)
    variance = sum(
        _jackknife_variance(within, 2.0 * across / other)
        for within, across, other in (
            (within_real, across_real, len(fake)),
            (within_fake, across_fake, len(real)),
        )
    )
    return KernelDistance(float(value), float(np.sqrt(variance)))


def paired_kernel_distance(real: Float[np.ndarray, "N D"], fake: Float[np.ndarray, "N D"]) -> KernelDistance:
    """The same where each fake clip was made from the real clip in its row: no clip is compared with its own partner.

    `kernel_distance` expects independent sets. Partners resemble each other more than strangers do, so it comes out too
    low for pairs, even below zero; this does not (Gretton et al. 2012, equation 4).

    Args:
        real: features.
        fake: features of as many clips, in the same order.

    Raises:
        UserError: fewer than two clips.
    """
    assert real.shape == fake.shape
    _require_two(real, fake)
    partners = (np.sum(real * fake, axis=1) / real.shape[1] + 1.0) ** 3
    within = _similarity_to_others(real) + _similarity_to_others(fake)
    strangers = within - _similarity(real, fake) - _similarity(fake, real) + 2.0 * partners
    variance = _jackknife_variance(strangers, np.zeros(len(real)))
    return KernelDistance(_mean_of_pairs(strangers), float(np.sqrt(variance)))


def _require_two(real: np.ndarray, fake: np.ndarray) -> None:
    if min(len(real), len(fake)) < 2:
        raise UserError(
            f"a kernel distance needs at least 2 clips of each set, got {len(real)} and {len(fake)}",
            remedy="evaluate more clips",
        )


def _jackknife_variance(within: Float[np.ndarray, " N"], across: Float[np.ndarray, " N"]) -> float:
    """Variance of the distance over the clips of one set, from the distances without each of them.

    Args:
        within: each clip's similarity to the others of its set, summed.
        across: twice its mean similarity to the other set.
    """
    count = len(within)
    if count < 3:
        return float("nan")
    without = (within.sum() - 2.0 * within) / ((count - 1) * (count - 2)) - (across.sum() - across) / (count - 1)
    return float((count - 1) * without.var())


def _mean_of_pairs(within: Float[np.ndarray, " N"]) -> float:
    return float(within.sum() / (len(within) * (len(within) - 1)))


def _similarity_to_others(rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " N"]:
    with_itself = (np.sum(rows * rows, axis=1) / rows.shape[1] + 1.0) ** 3
    similarity: np.ndarray = _similarity(rows, rows) - with_itself
    return similarity


def _similarity(rows: Float[np.ndarray, "N D"], others: Float[np.ndarray, "M D"]) -> Float[np.ndarray, " N"]:
    """Kernel of each row with all others, summed."""
    sums = np.zeros(len(rows))
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        for first in range(0, len(others), _BLOCK):
            products = part @ others[first : first + _BLOCK].T
            sums[start : start + _BLOCK] += ((products / rows.shape[1] + 1.0) ** 3).sum(axis=1)
    return sums
