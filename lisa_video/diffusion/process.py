"""The seam for noise processes: how clean latents become noisy ones, and what the network is asked to predict."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor


class NoiseProcess(ABC):
    """One definition of the noise process, shared by training and sampling.

    Letters: `x0` clean latents, `n` standard normal noise, `s` the noise level of each clip (sigma for EDM, time in
    [0, 1] for rectified flow), `x_s` noisy latents, `F` the raw output of the network.
    """

    @abstractmethod
    def add_noise(
        self, x0: Float[Tensor, "B F C h w"], n: Float[Tensor, "B F C h w"], s: Float[Tensor, " B"]
    ) -> Float[Tensor, "B F C h w"]:
        """Noisy latents x_s."""

    @abstractmethod
    def target(
        self, x0: Float[Tensor, "B F C h w"], n: Float[Tensor, "B F C h w"], s: Float[Tensor, " B"]
    ) -> Float[Tensor, "B F C h w"]:
        """What F should be. Losses are plain mean squares against it: its variance does not depend on s."""

    @abstractmethod
    def model_input(self, x_s: Float[Tensor, "B F C h w"], s: Float[Tensor, " B"]) -> Float[Tensor, "B F C h w"]:
        """What the network is shown instead of x_s."""

    @abstractmethod
    def timestep(self, s: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """The number under which the network is told the noise level."""

    @abstractmethod
    def denoised(
        self, f: Float[Tensor, "B F C h w"], x_s: Float[Tensor, "B F C h w"], s: Float[Tensor, " B"]
    ) -> Float[Tensor, "B F C h w"]:
        """The estimate of x0 that the output F stands for."""


def per_clip(s: Float[Tensor, " B"]) -> Float[Tensor, "B 1 1 1 1"]:
    """Reshape one number a clip for products with (B, F, C, h, w)."""
    return s.view(-1, 1, 1, 1, 1)
