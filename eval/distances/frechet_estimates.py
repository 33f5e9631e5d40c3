"""What the clips at hand say about a Frechet distance: its spread, its floor, and its value for ever more clips.

The distance of finite sets is too large, about in proportion to 1/N (Chong and Forsyth, "Effectively unbiased FID and
Inception Score and where to find them", 2020). A bootstrap cannot mend that, it only adds the same once more. So the
interval here is the spread alone, laid around the value, and the floor and the extrapolation show the bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from eval.bootstrap import Estimate, estimate
from eval.distances.frechet import frechet_of_features

DRAWS, SPLITS, POINTS = 200, 4, 15
SMALLEST_SHARE = 0.5
"""Of the clips, in the extrapolation: smaller sets leave the range where the bias follows 1/N."""


@dataclass(frozen=True)
class InfiniteEstimate:
    """A distance extrapolated to infinitely many clips.

    Attributes:
        value: where the line through the points meets 1/N = 0; may be slightly negative for equal distributions.
        shares: of both sets' clips that the points were computed from.
        distances: the points.
    """

    value: float
    shares: list[float]
    distances: list[float]


def frechet_interval(
    real: Float[np.ndarray, "N D"], fake: Float[np.ndarray, "M D"], *, seed: int, draws: int = DRAWS
) -> Estimate:
    """The distance, with an interval that holds 95 % of the distances of other clips of the same kind and number.

    The clips of both sets are drawn again with replacement. The draws' own mean lies above the value, for the reason
    above; it is moved onto the value, so the interval says nothing about bias. It is rather too wide than too narrow
    (measured on normal distributions: by 1.25 times with 6 to 10 clips for each dimension, twice with 1.5).

    Args:
        real: features.
        fake: features.
        seed: of the draws.
        draws: their number.
    """
    generator = np.random.default_rng(seed)
    value = frechet_of_features(real, fake)
    bar = tqdm(range(draws), desc="interval", unit="draw", leave=False, delay=2)
    drawn = np.array([frechet_of_features(_redrawn(real, generator), _redrawn(fake, generator)) for _ in bar])
    return estimate(value, np.maximum(0.0, drawn - drawn.mean() + value))


def real_floor(real: Float[np.ndarray, "N D"], *, seed: int, splits: int = SPLITS) -> float:
    """Distance of one half of the real clips from the other, mean over random splits: what perfection would score.

    Halves have fewer clips, so this is more than the floor of a score of all clips. NaN below four clips.
    """
    if len(real) < 4:
        return float("nan")
    orders = (np.random.default_rng((seed, split)).permutation(len(real)) for split in range(splits))
    return float(np.mean([frechet_of_features(real[order[::2]], real[order[1::2]]) for order in orders]))


def frechet_infinite(
    real: Float[np.ndarray, "N D"], fake: Float[np.ndarray, "M D"], *, seed: int, points: int = POINTS
) -> InfiniteEstimate:
    """Extrapolate to infinitely many clips of both sets: a line through distances of random parts, over 1 / share.

    Chong and Forsyth thin the generated set only, beside a large real one; here both are thinned by the same share,
    which takes the bias of both. Needs about twice as many clips as dimensions (measured: with 5 times as many, the
    bias of a 400-dimensional normal distribution went from 47 to 0; with as many, from 360 to 210).

    Args:
        real: features, at least 4.
        fake: features, at least 4.
        seed: of the parts.
        points: distances, the last one that of all clips.
    """
    generator = np.random.default_rng(seed)
    shares = np.linspace(SMALLEST_SHARE, 1.0, points)
    distances = [
        frechet_of_features(_thinned(real, share, generator), _thinned(fake, share, generator)) for share in shares
    ]
    _, value = np.polyfit(1.0 / shares, distances, deg=1)
    return InfiniteEstimate(float(value), shares.tolist(), distances)


def _redrawn(rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return rows[generator.integers(len(rows), size=len(rows))]


def _thinned(rows: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    return rows[generator.permutation(len(rows))[: round(share * len(rows))]]
