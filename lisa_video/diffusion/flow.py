"""Rectified flow, the process of Wan and Stable Diffusion 3 (Liu et al. 2022): x_t = (1 - t) x0 + t n, F* = n - x0."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor

from lisa_video.diffusion.process import NoiseProcess, per_clip


@final
class FlowProcess(NoiseProcess):
    """Straight paths between data (t = 0) and noise (t = 1).

    Args:
        time_scale: factor between t and the number that the network is told (1000 for Wan and SD3).
    """

    def __init__(self, time_scale: float = 1000.0) -> None:
        self.time_scale = time_scale

    def add_noise(
        self, x0: Float[Tensor, "B F C h w"], n: Float[Tensor, "B F C h w"], s: Float[Tensor, " B"]
    ) -> Float[Tensor, "B F C h w"]:
        """x_t = (1 - t) x0 + t n."""
        t = per_clip(s)
        return (1 - t) * x0 + t * n

    def target(
        self, x0: Float[Tensor, "B F C h w"], n: Float[Tensor, "B F C h w"], s: Float[Tensor, " B"]
    ) -> Float[Tensor, "B F C h w"]:
        """The velocity n - x0."""
        return n - x0

    def model_input(self, x_s: Float[Tensor, "B F C h w"], s: Float[Tensor, " B"]) -> Float[Tensor, "B F C h w"]:
        """x_t itself."""
        return x_s

    def timestep(self, s: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """The time t in the network's units."""
        return s * self.time_scale

    def denoised(
        self, f: Float[Tensor, "B F C h w"], x_s: Float[Tensor, "B F C h w"], s: Float[Tensor, " B"]
    ) -> Float[Tensor, "B F C h w"]:
        """x0 = x_t - t F."""
        return x_s - per_clip(s) * f
