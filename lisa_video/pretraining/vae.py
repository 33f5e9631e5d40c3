"""The tiny VAE of the embedded base, trained on demo clips by reconstruction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLTemporalDecoder
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from lisa_video.data.batch import ClipBatch
from lisa_video.pretraining.data import DemoBatches
from lisa_video.pretraining.loop import LoopSettings, train

_KL_WEIGHT = 1e-4  # on the mean over latent elements: keeps latents near unit scale without blurring
_EDGE_WEIGHT = 1.0  # on the difference of image gradients: thin limbs weigh more than flat walls


def reconstruction_loss(
    reconstruction: Float[Tensor, "N 3 H W"], frames: Float[Tensor, "N 3 H W"]
) -> Float[Tensor, ""]:
    """Mean absolute error of pixels in [-1, 1] and of their differences along x and y."""
    error = reconstruction - frames
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + _EDGE_WEIGHT * edges


def vae_loss(vae: AutoencoderKLTemporalDecoder, frames: Float[Tensor, "B F 3 H W"], noise: Tensor) -> Tensor:
    """Reconstruction from a sample of the posterior, plus its divergence from a standard normal."""
    folded = rearrange(frames, "b f c h w -> (b f) c h w")
    posterior = vae.encode(folded).latent_dist
    latents = posterior.mean + posterior.std * noise
    reconstruction = vae.decode(latents, num_frames=frames.shape[1]).sample
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    return reconstruction_loss(reconstruction.float(), folded) + _KL_WEIGHT * kl


def train_vae(
    vae: AutoencoderKLTemporalDecoder, data: DemoBatches, settings: LoopSettings, state_dir: Path
) -> list[float]:
    """Train in place, then set the scaling factor to 1 / standard deviation of the latents (SVD's convention)."""
    batches: Iterator[ClipBatch] = iter(())

    def seek(step: int) -> None:
        nonlocal batches
        batches = data.starting_at(step)

    def loss_at(step: int) -> Tensor:
        frames = next(batches).frames
        # A VAE needs short clips only; the demo clip's frames are far enough apart for the temporal layers.
        frames = frames[:, : frames.shape[1] // 2 * 2]
        stride = 2 ** (len(vae.config.block_out_channels) - 1)
        shape = (
            frames.shape[0] * frames.shape[1],
            vae.config.latent_channels,
            *(s // stride for s in frames.shape[-2:]),
        )
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=settings.bf16):
            return vae_loss(vae, frames, noise)

    losses = train("vae", vae, loss_at, settings, state_dir, seek)
    vae.eval().requires_grad_(False)
    vae.register_to_config(scaling_factor=round(1 / latent_std(vae, next(data.starting_at(0))), 5))
    return losses


@torch.no_grad()
def latent_std(vae: AutoencoderKLTemporalDecoder, batch: ClipBatch) -> float:
    """Standard deviation of the posterior's mode over a batch."""
    return float(vae.encode(batch.frames.flatten(0, 1)).latent_dist.mode().std())


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKLTemporalDecoder, frames: Float[Tensor, "B F 3 H W"]) -> float:
    """Peak signal-to-noise ratio of encode-decode, in dB, on pixels in [0, 1]."""
    folded = frames.flatten(0, 1)
    decoded = vae.decode(vae.encode(folded).latent_dist.mode(), num_frames=frames.shape[1]).sample.clamp(-1, 1)
    return float(-10 * torch.log10(F.mse_loss(decoded / 2, folded / 2)))
