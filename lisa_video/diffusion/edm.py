"""EDM preconditioning as Stable Video Diffusion uses it (Karras et al. 2022; Blattmann et al. 2023, v-prediction).

    c_skip = 1 / (s^2 + 1)    c_out = -s / sqrt(s^2 + 1)    c_in = 1 / sqrt(s^2 + 1)    c_noise = ln(s) / 4

The usual SVD loss, weight (1 + s^2) / s^2 on the denoised latents, has weight * c_out^2 = 1. It is therefore a plain
mean square in the network's own output space against F* = (n - s x0) / sqrt(1 + s^2), and so it is written here.
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from lisa_video.diffusion.process import NoiseProcess, per_clip


@final
class EDMProcess(NoiseProcess):
    """Variance-exploding noise: x_s = x0 + s n, with s = sigma > 0."""

    def add_noise(
        self, x0: Float[Tensor, "B F C h w"], n: Float[Tensor, "B F C h w"], s: Float[Tensor, " B"]
    ) -> Float[Tensor, "B F C h w"]:
        """x_s = x0 + s n."""
        return x0 + per_clip(s) * n

    def target(
        self, x0: Float[Tensor, "B F C h w"], n: Float[Tensor, "B F C h w"], s: Float[Tensor, " B"]
    ) -> Float[Tensor, "B F C h w"]:
        """F* = (n - s x0) / sqrt(1 + s^2), about unit variance at every s."""
        s = per_clip(s)
        return (n - s * x0) / torch.sqrt(1 + s**2)

    def model_input(self, x_s: Float[Tensor, "B F C h w"], s: Float[Tensor, " B"]) -> Float[Tensor, "B F C h w"]:
        """c_in x_s."""
        return x_s / torch.sqrt(per_clip(s) ** 2 + 1)

    def timestep(self, s: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """c_noise = ln(s) / 4."""
        return torch.log(s) / 4

    def denoised(
        self, f: Float[Tensor, "B F C h w"], x_s: Float[Tensor, "B F C h w"], s: Float[Tensor, " B"]
    ) -> Float[Tensor, "B F C h w"]:
        """c_out F + c_skip x_s."""
        s = per_clip(s)
        return -s / torch.sqrt(s**2 + 1) * f + x_s / (s**2 + 1)
