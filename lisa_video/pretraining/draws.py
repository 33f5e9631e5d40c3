"""Draws: the batches of steps whose clips and random numbers lie on the device, so that a GPU can record them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lisa_video.conditioning import drop_image, drop_pose
from lisa_video.config.schema import RunConfig
from lisa_video.data.order import epoch_order
from lisa_video.models.backbone import BackboneParts, Condition
from lisa_video.models.build import build_sigmas
from lisa_video.pretraining.clips_in_memory import Clips


class Drawn(NamedTuple):
    """A step's batch: what the network sees, and what it should say."""

    x_s: Tensor
    sigma: Tensor
    timestep: Tensor
    model_input: Tensor
    target: Tensor
    condition: Condition
    pose_maps: Tensor
    positions: Tensor


class Draws:
    """Clips, noise levels, noise and dropped conditions of each step.

    Args:
        config: of any arm; what is used of it must be the same in all.
        parts: frozen network and codec, on the device.
        clips: training clips.
        seed: of order and random numbers.
    """

    def __init__(self, config: RunConfig, parts: BackboneParts, clips: Clips, seed: int) -> None:
        self.config, self.parts, self.clips = config, parts, clips
        device, self.batch = clips.latents.device, config.training.micro_batch_size
        self.sigmas = build_sigmas(config.noise)
        needed, count = config.training.max_steps * self.batch, len(clips.ids)
        epochs = [epoch_order(epoch, count, seed) for epoch in range(needed // count + 2)]
        self.order = torch.from_numpy(np.concatenate(epochs)).to(device)
        self.position = torch.zeros((), dtype=torch.int64, device=device)
        self.within = torch.arange(self.batch, device=device)
        self.generator = torch.Generator(device)
        self.seed = seed
        self.restart()

    def restart(self) -> None:
        """Back to the first step."""
        self.position.zero_()
        self.generator.manual_seed(self.seed)

    def _normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, device=like.device)

    def _uniform(self) -> Tensor:
        u = torch.rand(self.batch, generator=self.generator, device=self.order.device)
        return u.clamp(1e-6, 1 - 1e-6)

    @torch.no_grad()
    def __call__(self) -> Drawn:
        """The next step's."""
        settings, process = self.config.conditioning, self.parts.backbone.process
        positions = self.position + self.within
        chosen = self.order[positions]
        x0, picture = self.clips.latents[chosen], self.clips.pictures[chosen]
        condition = self.parts.codec.encode_reference(
            picture,
            self._normal(picture),
            self.clips.fps[chosen],
            noise_aug_strength=settings.noise_aug_strength,
            motion_bucket_id=settings.motion_bucket_id,
            embedding=self.clips.embedding[chosen],
        )
        condition = drop_image(condition, self._uniform(), settings.image_dropout)
        pose_maps = drop_pose(self.clips.pose_maps[chosen].float() / 255, self._uniform(), settings.pose_dropout)
        sigma, noise = self.sigmas.icdf(self._uniform()), self._normal(x0)
        x_s = process.add_noise(x0, noise, sigma)
        model_input, timestep = process.model_input(x_s, sigma), process.timestep(sigma)
        self.position.add_(self.batch)
        target = process.target(x0, noise, sigma)
        return Drawn(x_s, sigma, timestep, model_input, target, condition, pose_maps, positions)
