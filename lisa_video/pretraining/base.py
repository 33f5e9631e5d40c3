"""The tiny image-to-video UNet of the embedded base, trained on demo clips without any pose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from lisa_video.conditioning import encode_batch
from lisa_video.config.schema import ConditioningConfig
from lisa_video.data.batch import ClipBatch
from lisa_video.diffusion.sigma import SigmaDistribution
from lisa_video.models.backbone import BackboneParts
from lisa_video.objective import LISAWeight, Objective
from lisa_video.pretraining.base_init import fit_still_picture, initialise_as_still_picture
from lisa_video.pretraining.data import DemoBatches
from lisa_video.pretraining.loop import LoopSettings, train

_FIT_CLIPS = 64


def train_base(
    parts: BackboneParts,
    data: DemoBatches,
    sigmas: SigmaDistribution,
    conditioning: ConditioningConfig,
    settings: LoopSettings,
    state_dir: Path,
) -> list[float]:
    """Train the backbone in place on its own denoising loss (the objective's first term, without a branch)."""
    backbone, codec, process = parts.backbone, parts.codec, parts.backbone.process
    objective = Objective(process, sigmas, lisa_weight=LISAWeight(0.0), seed=data.seed)
    batches: Iterator[ClipBatch] = iter(())

    def seek(step: int) -> None:
        nonlocal batches
        batches = data.starting_at(step)

    def loss_at(step: int) -> Tensor:
        batch = encode_batch(codec, next(batches), conditioning, data.seed)
        sigma, noise = objective.draw(batch)
        x_s = process.add_noise(batch.latents, noise, sigma)
        state = backbone.encode(process.model_input(x_s, sigma), process.timestep(sigma), batch.condition)
        prediction = backbone.decode(state, None)
        return (prediction - process.target(batch.latents, noise, sigma)).square().mean()

    def start() -> None:
        batch = encode_batch(codec, next(replace(data, batch_size=_FIT_CLIPS).starting_at(0)), conditioning, data.seed)
        sigma, noise = objective.draw(batch)
        x_s = process.add_noise(batch.latents, noise, sigma)
        fit = fit_still_picture(
            process.target(batch.latents, noise, sigma), process.model_input(x_s, sigma), batch.condition.image_latents
        )
        initialise_as_still_picture(backbone.unet, fit)

    start()
    backbone.requires_grad_(True).train()
    losses = train("base", backbone, loss_at, settings, state_dir, seek)
    backbone.requires_grad_(False).eval()
    return losses
