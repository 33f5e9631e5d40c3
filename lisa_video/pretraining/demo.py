"""`lisa-video pretrain-demo`: the tiny base that is shipped with the package, from the demo data alone."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from lisa_video.config.schema import ConditioningConfig
from lisa_video.data.manifest import file_digest, read_header
from lisa_video.diffusion.sigma import LogNormalSigma
from lisa_video.models.svd.build import parts_from_modules
from lisa_video.models.svd.norm import set_norm_groups
from lisa_video.models.svd.tiny import save_checkpoint, tiny_image_encoder, tiny_unet
from lisa_video.pretraining.base import train_base
from lisa_video.pretraining.data import DemoBatches
from lisa_video.pretraining.loop import LoopSettings, write_record
from lisa_video.pretraining.vae import make_vae, reconstruction_psnr, train_decoder

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DemoRecipe:
    """Sizes and lengths of the embedded base. The defaults made the shipped files."""

    seed: int = 0
    size: int = 64
    num_frames: int = 8
    frame_stride: int = 2
    unet_widths: tuple[int, ...] = (64, 64, 32, 32)
    vae_widths: tuple[int, ...] = (32, 64, 64, 64)
    latent_channels: int = 16
    norm_groups: int = 8
    decoder_steps: int = 600
    base_steps: int = 1300
    base_batch: int = 8


def pretrain_demo(manifest: Path, out: Path, recipe: DemoRecipe) -> Path:
    """Train VAE and UNet one after the other and write an SVD checkpoint (float16, hub layout).

    Killed runs continue. Beside the weights stands `training.json`: recipe, data digest and loss curves.

    Args:
        manifest: of a demo data set; its training split is used.
        out: checkpoint folder; states of unfinished stages are kept in `out/state`.
        recipe: sizes and lengths.
    """
    vae, decoder_losses, psnr = pretrain_vae(manifest, out / "state", recipe)
    unet, image_encoder, processor, base_losses = pretrain_unet(manifest, out / "state", recipe, vae)
    save_checkpoint(out, unet, vae, image_encoder, processor, variant="fp16")
    facts = {"recipe": asdict(recipe), "manifest_digest": file_digest(manifest), "data": read_header(manifest)}
    curves = {"decoder": decoder_losses, "base": base_losses}
    write_record(out / "training.json", curves, **facts, held_out_psnr_db=round(psnr, 2))
    return out


def pretrain_vae(
    manifest: Path, state_dir: Path, recipe: DemoRecipe
) -> tuple[AutoencoderKLTemporalDecoder, list[float], float]:
    """VAE, its loss curve, and its reconstruction of held-out clips in dB."""
    short = replace(_batches(manifest, recipe, 8), num_frames=4, frame_stride=4)
    torch.manual_seed(recipe.seed)
    vae = make_vae(recipe.vae_widths, recipe.latent_channels, recipe.norm_groups, short)
    losses = train_decoder(vae, short, LoopSettings(recipe.decoder_steps, lr=1e-3), state_dir)
    held_out = next(replace(_batches(manifest, recipe, 32), split="val").starting_at(0)).frames
    psnr = reconstruction_psnr(vae, held_out)
    _logger.info("VAE reconstruction of held-out clips: %.2f dB", psnr)
    return vae, losses, psnr


def pretrain_unet(
    manifest: Path, state_dir: Path, recipe: DemoRecipe, vae: AutoencoderKLTemporalDecoder
) -> tuple[UNetSpatioTemporalConditionModel, CLIPVisionModelWithProjection, CLIPImageProcessor, list[float]]:
    """UNet, image encoder (random) and its processor, and the UNet's loss curve. Uses the VAE's encoder only."""
    torch.manual_seed(recipe.seed)
    image_encoder, processor = tiny_image_encoder()
    unet = tiny_unet(recipe.unet_widths, recipe.latent_channels, recipe.num_frames)
    set_norm_groups(unet, recipe.norm_groups)
    parts = parts_from_modules(unet, vae, image_encoder, processor)
    data = _batches(manifest, recipe, recipe.base_batch)
    settings = LoopSettings(recipe.base_steps, lr=1e-3, warmup_steps=50, ema_decay=0.995)
    losses = train_base(parts, data, LogNormalSigma(), ConditioningConfig(), settings, state_dir)
    return unet, image_encoder, processor, losses


def _batches(manifest: Path, recipe: DemoRecipe, batch_size: int) -> DemoBatches:
    size = (recipe.size, recipe.size)
    return DemoBatches(manifest, batch_size, recipe.num_frames, recipe.frame_stride, size, recipe.seed)
