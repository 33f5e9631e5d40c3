"""The tiny VAE of the embedded base: a closed-form encoder, and a decoder trained on demo clips by reconstruction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLTemporalDecoder
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from lisa_video.data.batch import ClipBatch
from lisa_video.models.svd.norm import set_norm_groups
from lisa_video.models.svd.tiny import tiny_vae
from lisa_video.pretraining.data import DemoBatches
from lisa_video.pretraining.loop import LoopSettings, train
from lisa_video.pretraining.vae_init import initialise_by_pca

_EDGE_WEIGHT = 0.3  # on the difference of image gradients: thin limbs weigh more than flat walls
_CROP = 32  # pixels; most steps see crops, at a quarter of the cost of whole 64 px frames
_CROPPED_SHARE = 0.8  # of the steps
_PCA_CLIPS = 64


def make_vae(
    widths: tuple[int, ...], latent_channels: int, norm_groups: int, data: DemoBatches
) -> AutoencoderKLTemporalDecoder:
    """A VAE that starts as a linear patch codec of the data, with SVD's scaling factor 1 / standard deviation."""
    vae = tiny_vae(widths, latent_channels)
    set_norm_groups(vae, norm_groups)
    frames = next(replace(data, batch_size=_PCA_CLIPS, num_frames=2).starting_at(0)).frames
    initialise_by_pca(vae, frames.flatten(0, 1), norm_groups)
    with torch.no_grad():
        deviation = float(vae.encode(frames.flatten(0, 1)).latent_dist.mode().std())
    vae.register_to_config(scaling_factor=round(1 / deviation, 5))
    return vae.eval().requires_grad_(False)


def reconstruction_loss(
    reconstruction: Float[Tensor, "N 3 H W"], frames: Float[Tensor, "N 3 H W"]
) -> Float[Tensor, ""]:
    """Mean absolute error of pixels in [-1, 1] and, weighted, of their differences along x and y."""
    error = reconstruction - frames
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + _EDGE_WEIGHT * edges


def random_crop(frames: Float[Tensor, "B F 3 H W"], seed: int) -> Float[Tensor, "B F 3 h w"]:
    """The same window of `_CROP` pixels from all frames."""
    rows, columns = (side - _CROP + 1 for side in frames.shape[-2:])
    top, left = np.random.default_rng(seed).integers((rows, columns))
    return frames[..., top : top + _CROP, left : left + _CROP]


def train_decoder(
    vae: AutoencoderKLTemporalDecoder, data: DemoBatches, settings: LoopSettings, state_dir: Path
) -> list[float]:
    """Train the VAE's decoder in place, from samples of the posterior; the encoder, hence the latents, stay."""
    batches: Iterator[ClipBatch] = iter(())

    def seek(step: int) -> None:
        nonlocal batches
        batches = data.starting_at(step)

    def loss_at(step: int) -> Tensor:
        frames = next(batches).frames
        if step < _CROPPED_SHARE * settings.steps:
            frames = random_crop(frames, step)
        folded = rearrange(frames, "b f c h w -> (b f) c h w")
        with torch.no_grad():
            posterior = vae.encode(folded).latent_dist
            latents = posterior.sample(torch.Generator(frames.device).manual_seed(step))
        return reconstruction_loss(vae.decode(latents, num_frames=frames.shape[1]).sample, folded)

    vae.decoder.requires_grad_(True).train()
    losses = train("decoder", vae.decoder, loss_at, settings, state_dir, seek)
    vae.decoder.requires_grad_(False).eval()
    return losses


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKLTemporalDecoder, frames: Float[Tensor, "B F 3 H W"]) -> float:
    """Peak signal-to-noise ratio of encode-decode, in dB, on pixels in [0, 1]."""
    folded = frames.flatten(0, 1)
    decoded = vae.decode(vae.encode(folded).latent_dist.mode(), num_frames=frames.shape[1]).sample.clamp(-1, 1)
    return float(-10 * torch.log10(F.mse_loss(decoded / 2, folded / 2)))
