"""Distributions of the noise level in training, given as inverse cumulative functions of one uniform number a clip.

Drawing through a uniform number keeps a clip's noise level a function of its seed alone. Both distributions are in
public use for SVD and differ by almost three at the median, so the choice is a setting.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor


class SigmaDistribution(ABC):
    """A distribution of noise levels."""

    @abstractmethod
    def icdf(self, u: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Noise level at quantile u in (0, 1), increasing in u."""


@final
class LogNormalSigma(SigmaDistribution):
    """ln(sigma) ~ N(mean, std^2) (Karras et al. 2022; SVD scripts use mean 0.7, std 1.6: median 2.0)."""

    def __init__(self, mean: float = 0.7, std: float = 1.6) -> None:
        self.mean, self.std = mean, std

    def icdf(self, u: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """exp(mean + std Phi^-1(u))."""
        return torch.exp(self.mean + self.std * torch.special.ndtri(u.double())).to(u.dtype)


@final
class CosineSigma(SigmaDistribution):
    """Interpolated cosine log-SNR schedule (Hoogeboom et al. 2023, as k-diffusion samples it; median 0.71).

    Args:
        sigma_data: standard deviation of the data.
        sigma_min: lowest noise level.
        sigma_max: highest noise level.
        image_d: image size in the schedule's units.
        noise_d_low: reference size of the noisiest end.
        noise_d_high: reference size of the least noisy end.
    """

    def __init__(
        self,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 700.0,
        image_d: float = 64.0,
        noise_d_low: float = 32.0,
        noise_d_high: float = 64.0,
    ) -> None:
        self.sigma_data = sigma_data
        self.logsnr_first = -2 * math.log(sigma_min / sigma_data)
        self.logsnr_last = -2 * math.log(sigma_max / sigma_data)
        self.shifts = (2 * math.log(noise_d_low / image_d), 2 * math.log(noise_d_high / image_d))

    def _shifted_cosine(self, u: Tensor, shift: float) -> Tensor:
        t_first = math.atan(math.exp(-0.5 * (self.logsnr_first - shift)))
        t_last = math.atan(math.exp(-0.5 * (self.logsnr_last - shift)))
        return -2 * torch.log(torch.tan(t_first + u * (t_last - t_first))) + shift

    def icdf(self, u: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Linear blend, by u, of the cosine schedules shifted for the two reference sizes."""
        v = u.double()
        low, high = (self._shifted_cosine(v, shift) for shift in self.shifts)
        logsnr = torch.lerp(high, low, v)
        return (torch.exp(-logsnr / 2) * self.sigma_data).to(u.dtype)
