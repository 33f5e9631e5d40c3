"""Frechet distance between two sets of features, from streaming float64 means and covariances.

    d² = |m1 - m2|² + tr(C1 + C2 - 2 (C1^½ C2 C1^½)^½)

Source: Dowson and Landau, "The Frechet distance between multivariate normal distributions", 1982; as a score of
generated pictures Heusel et al. 2017 (FID), of videos Unterthiner et al. 2018 (FVD). The score is biased upwards
for small sets, so it is only compared at equal numbers of clips and printed beside a real-against-real floor.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float

from lisa_video.errors import UserError


class FeatureStatistics:
    """Mean and covariance of features that arrive in batches; parts of the data can be counted apart and merged.

    The update is that of Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979: numerically safe, in float64 whatever comes in.

    Args:
        dimension: D, numbers per clip.
    """

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self._mean = np.zeros(dimension)
        self._scatter = np.zeros((dimension, dimension))  # sum of outer products of deviations from the mean

    @property
    def dimension(self) -> int:
        """D."""
        return len(self._mean)

    def update(self, features: Float[np.ndarray, "N D"]) -> None:
        """Count N more clips.

        Raises:
            UserError: wrong number of dimensions, or a feature that is not finite.
        """
        if features.shape[1] != self.dimension:
            raise _dimension_error(features.shape[1], self.dimension)
        if not np.isfinite(features).all():
            raise UserError(
                f"{int((~np.isfinite(features)).any(axis=1).sum())} of {len(features)} clips have features that are "
                "not finite",
                remedy="look for NaN in the generated clips; a diverged run cannot be scored",
            )
        if len(features) == 0:
            return
        values = features.astype(np.float64)
        mean = values.mean(axis=0)
        self._absorb(len(values), mean, (values - mean).T @ (values - mean))

    def merge(self, other: FeatureStatistics) -> None:
        """Count everything that `other` counted.

        Raises:
            UserError: the numbers of dimensions differ.
        """
        if other.dimension != self.dimension:
            raise _dimension_error(other.dimension, self.dimension)
        if other.count:
            self._absorb(other.count, other._mean, other._scatter)

    def _absorb(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        together = self.count + count
        apart = mean - self._mean
        self._scatter = self._scatter + scatter + np.outer(apart, apart) * (self.count * count / together)
        self._mean = self._mean + apart * (count / together)
        self.count = together

    @property
    def mean(self) -> Float[np.ndarray, " D"]:
        """Mean over the clips."""
        return self._mean.copy()

    def covariance(self, kind: Literal["unbiased", "population"]) -> Float[np.ndarray, "D D"]:
        """Covariance over the clips, divided by N - 1 ("unbiased") or N ("population").

        Raises:
            UserError: fewer than two clips.
        """
        if self.count < 2:
            raise UserError(f"a covariance needs at least 2 clips, got {self.count}", remedy="evaluate more clips")
        return self._scatter / (self.count - 1 if kind == "unbiased" else self.count)


def frechet_distance(
    a: FeatureStatistics, b: FeatureStatistics, kind: Literal["unbiased", "population"] = "unbiased"
) -> float:
    """Squared Frechet distance of the normal distributions with these moments; 0 for equal ones, never negative.

    Args:
        a: one set.
        b: the other set.
        kind: which covariance; part of the protocol.

    Raises:
        UserError: dimensions differ, or a set has fewer than two clips.
    """
    if a.dimension != b.dimension:
        raise _dimension_error(b.dimension, a.dimension)
    return _distance(a.mean, _square_root(a.covariance(kind)), b.mean, _square_root(b.covariance(kind)))


def frechet_of_features(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"]) -> float:
    """`frechet_distance` with unbiased covariances of features in memory: quicker, for many draws from the same."""
    return _distance(a.mean(axis=0), _root_of_rows(a), b.mean(axis=0), _root_of_rows(b))


def _distance(mean_a: np.ndarray, root_a: np.ndarray, mean_b: np.ndarray, root_b: np.ndarray) -> float:
    """The formula above, with any matrices R for which R.T @ R is the covariance.

    The trace of (C1^½ C2 C1^½)^½ is the sum of the singular values of R1 R2.T. That form keeps its accuracy when
    there are fewer clips than dimensions, where the square root of a rounding error near 0 would be a large error.
    """
    overlap = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    distance = np.sum((mean_a - mean_b) ** 2) + np.sum(root_a**2) + np.sum(root_b**2) - 2.0 * overlap
    return max(0.0, float(distance))


def _square_root(covariance: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D D"]:
    """Symmetric square root by eigen-decomposition; eigenvalues that rounding made negative count as 0."""
    values, vectors = np.linalg.eigh(covariance)
    root: np.ndarray = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    return root


def _root_of_rows(rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "R D"]:
    """Deviations from the mean, rotated into at most D rows."""
    deviations: np.ndarray = (rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1)
    if len(rows) > rows.shape[1]:
        deviations = np.asarray(np.linalg.qr(deviations, mode="r"))
    return deviations


def _dimension_error(got: int, expected: int) -> UserError:
    return UserError(
        f"features have {got} dimensions, expected {expected}",
        remedy="use the same feature extractor for both sets of clips",
    )
