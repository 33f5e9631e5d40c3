"""`lisa-video pretrain-demo`: the tiny base that is shipped with the package, from the demo data alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from lisa_video.config.schema import ConditioningConfig
from lisa_video.data.manifest import read_header
from lisa_video.diffusion.sigma import LogNormalSigma
from lisa_video.models.svd.build import parts_from_modules
from lisa_video.models.svd.tiny import save_checkpoint, tiny_image_encoder, tiny_unet, tiny_vae
from lisa_video.pretraining.base import train_base
from lisa_video.pretraining.data import DemoBatches, file_digest
from lisa_video.pretraining.loop import LoopSettings, write_record
from lisa_video.pretraining.vae import reconstruction_psnr, train_vae

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DemoRecipe:
    """Sizes and lengths of the embedded base. The defaults made the shipped files."""

    seed: int = 0
    size: int = 64
    num_frames: int = 8
    frame_stride: int = 2
    unet_widths: tuple[int, ...] = (64, 64, 32, 32)
    vae_widths: tuple[int, ...] = (32, 32, 64, 64)
    latent_channels: int = 16
    vae_steps: int = 700
    vae_batch: int = 4
    base_steps: int = 3600
    base_batch: int = 8
    base_lr: float = 1e-3


def pretrain_demo(manifest: Path, out: Path, recipe: DemoRecipe) -> Path:
    """Train VAE and UNet one after the other and write an SVD checkpoint (float16, hub layout).

    Killed runs continue. Beside the weights stands `training.json`: recipe, data digest and loss curves.

    Args:
        manifest: of a demo data set; its training split is used.
        out: checkpoint folder; states of unfinished stages are kept in `out/state`.
        recipe: sizes and lengths.
    """
    read_header(manifest)
    torch.manual_seed(recipe.seed)
    vae, unet = (
        tiny_vae(recipe.vae_widths, recipe.latent_channels),
        tiny_unet(recipe.unet_widths, recipe.latent_channels, recipe.num_frames),
    )
    image_encoder, processor = tiny_image_encoder()
    state_dir = out / "state"
    vae_losses = train_vae(vae, _batches(manifest, recipe, recipe.vae_batch), _vae_settings(recipe), state_dir)
    psnr = reconstruction_psnr(vae, next(_batches(manifest, recipe, 16).starting_at(0)).frames)
    _logger.info("VAE reconstruction of training clips: %.2f dB", psnr)
    base_losses = _train_unet(manifest, recipe, (unet, vae, image_encoder, processor), state_dir)
    save_checkpoint(out, unet, vae, image_encoder, processor, variant="fp16")
    facts = {"recipe": recipe.__dict__, "manifest_digest": file_digest(manifest), "data": read_header(manifest)}
    write_record(out / "training_vae.json", vae_losses, **facts, train_psnr_db=round(psnr, 2))
    write_record(out / "training_base.json", base_losses, **facts)
    return out


def _batches(manifest: Path, recipe: DemoRecipe, batch_size: int) -> DemoBatches:
    size = (recipe.size, recipe.size)
    return DemoBatches(manifest, batch_size, recipe.num_frames, recipe.frame_stride, size, recipe.seed)


def _vae_settings(recipe: DemoRecipe) -> LoopSettings:
    return LoopSettings(recipe.vae_steps, lr=2e-3, bf16=True)


def _train_unet(
    manifest: Path,
    recipe: DemoRecipe,
    modules: tuple[object, object, CLIPVisionModelWithProjection, CLIPImageProcessor],
    state_dir: Path,
) -> list[float]:
    parts = parts_from_modules(*modules)  # type: ignore[arg-type]
    data = _batches(manifest, recipe, recipe.base_batch)
    settings = LoopSettings(recipe.base_steps, lr=recipe.base_lr, ema_decay=0.998, bf16=True)
    return train_base(parts, data, LogNormalSigma(), ConditioningConfig(), settings, state_dir)
