"""Sampling: Karras noise levels, Euler steps over any process, and guidance that may change from frame to frame."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x_s (B,F,C,h,w), s (B,)) -> denoised (B,F,C,h,w)."""


def karras_sigmas(
    num_steps: int, sigma_min: float = 0.002, sigma_max: float = 700.0, rho: float = 7.0
) -> Float[Tensor, " steps_and_zero"]:
    """Noise levels of Karras et al. 2022, eq. 5, from sigma_max down to sigma_min, then 0; float64, num_steps + 1."""
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    roots = sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))
    return torch.cat([roots**rho, torch.zeros(1, dtype=torch.float64)])


def sample_euler(
    denoise: Denoise,
    noise: Float[Tensor, "B F C h w"],
    sigmas: Float[Tensor, " steps_and_zero"],
    on_step: Callable[[int], object] | None = None,
) -> Float[Tensor, "B F C h w"]:
    """Integrate dx/ds = (x - denoised) / s from the first noise level to the last (Karras et al. 2022, algorithm 1).

    The same derivative serves rectified flow, where (x_t - x0) / t is the velocity n - x0.

    Args:
        denoise: estimate of the clean latents.
        noise: standard normal; scaled here by the first noise level.
        sigmas: decreasing levels, the last one 0.
        on_step: called with the number of finished steps (progress bars).

    Returns:
        Clean latents.
    """
    x = noise * sigmas[0].to(noise.dtype)
    for step, (s, s_next) in enumerate(zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True)):
        level = torch.full((len(x),), s, dtype=torch.float32, device=x.device)
        derivative = (x - denoise(x, level)) / s
        x = x + (s_next - s) * derivative
        if on_step is not None:
            on_step(step + 1)
    return x


def guidance_ramp(first: float, last: float, num_frames: int) -> Float[Tensor, "1 F 1 1 1"]:
    """Guidance scale of each frame, linear from the first to the last (SVD's pipeline ramps from 1 to 3)."""
    return torch.linspace(first, last, num_frames).view(1, -1, 1, 1, 1)


def guide(
    conditional: Float[Tensor, "B F C h w"],
    unconditional: Float[Tensor, "B F C h w"],
    scale: Float[Tensor, "1 F 1 1 1"],
) -> Float[Tensor, "B F C h w"]:
    """Classifier-free guidance (Ho & Salimans 2022): unconditional + scale (conditional - unconditional)."""
    return unconditional + scale.to(conditional) * (conditional - unconditional)
