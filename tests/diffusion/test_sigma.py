"""Both noise-level distributions have their published quantiles."""

from __future__ import annotations

import pytest
import torch

from lisa_video.diffusion.sigma import CosineSigma, LogNormalSigma

LEVELS = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])


@pytest.mark.parametrize(
    ("distribution", "published"),
    [(LogNormalSigma(0.7, 1.6), [0.145, 0.68, 2.01, 5.9, 28.0]), (CosineSigma(), [0.043, 0.25, 0.71, 2.03, 12.1])],
    ids=["lognormal", "cosine"],
)
def test_published_quantiles(distribution, published):
    torch.testing.assert_close(distribution.icdf(LEVELS), torch.tensor(published), rtol=0.015, atol=0)


def test_lognormal_is_the_exponential_of_a_normal():
    u = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    expected = torch.distributions.LogNormal(torch.tensor(-0.3).double(), torch.tensor(0.9).double()).icdf(u)
    torch.testing.assert_close(LogNormalSigma(-0.3, 0.9).icdf(u), expected)


def test_cosine_ends_at_its_lowest_and_highest_level():
    # The low end is shifted for noise_d_low, the high end for noise_d_high = image_d: shift 0 there.
    ends = CosineSigma(sigma_min=0.002, sigma_max=700.0).icdf(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends[1].item() == pytest.approx(700.0, rel=1e-6)
    assert ends[0].item() == pytest.approx(0.002, rel=1e-6)


@pytest.mark.parametrize("distribution", [LogNormalSigma(), CosineSigma()], ids=["lognormal", "cosine"])
def test_levels_rise_and_stay_finite_over_all_uniform_numbers_in_use(distribution):
    u = torch.linspace(1e-6, 1 - 1e-6, 1001)
    sigma = distribution.icdf(u)
    assert sigma.dtype == u.dtype and sigma.isfinite().all() and (sigma > 0).all()
    assert (sigma.diff() > 0).all()
