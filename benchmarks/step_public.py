"""The plain step in the manner of the public SVD ControlNet scripts."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLTemporalDecoder
from step_variants import OurStep, Setting, allocated, stop_checkpointing
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from lisa_video.data.batch import ClipBatch
from lisa_video.models.backbone import Condition
from lisa_video.models.build import build_denoiser
from lisa_video.models.svd import build as svd
from lisa_video.models.svd.tiny import tiny_image_encoder, tiny_vae


class PublicStep:
    """The plain step in the manner of the public scripts, around the same frozen network.

    Its branch is float32 under bf16 autocast, its frozen parts are in the computation's type, the frozen network runs
    as one pass with autograd on, and the optimizer is AdamW as torch makes it.
    """

    def __init__(self, setting: Setting, batch: ClipBatch, ours: OurStep) -> None:
        before = allocated()
        self.setting, self.batch, self.ours = setting, batch, ours
        self.backbone, codec = ours.parts.backbone, ours.parts.codec
        self.shared_bytes = sum(p.numel() * p.element_size() for p in self.backbone.parameters())
        with torch.device(setting.device):
            config = ours.config.model_copy(update={"lisa": None})
            self.branch = build_denoiser(config, ours.parts).branch.to(setting.device, torch.float32)
        self.branch.load_state_dict(ours.model.branch.state_dict())
        if setting.checkpointing:
            self.branch.enable_gradient_checkpointing()
        parts = build_codec(setting)
        self.vae, self.image_encoder = parts
        self.mean, self.std = codec.clip_mean.to(setting.dtype), codec.clip_std.to(setting.dtype)
        self.optimizer = torch.optim.AdamW(self.branch.parameters(), lr=1e-5)
        self()  # the optimizer's state is there from the first step
        self.static_bytes = allocated() - before

    def __call__(self) -> None:
        """One optimizer step."""
        setting, process = self.setting, self.backbone.process
        pixels = self.batch.frames.to(setting.dtype)
        clips, frames = pixels.shape[:2]
        with torch.no_grad():
            latents = self.vae.encode(pixels.flatten(0, 1)).latent_dist.mode() * self.vae.config.scaling_factor
            latents = latents.unflatten(0, (clips, frames)).float()
            reference = pixels[:, 0] + 0.02 * torch.randn_like(pixels[:, 0])
            image = self.vae.encode(reference).latent_dist.mode()
            small = nn.functional.interpolate(pixels[:, 0].float(), (224, 224), mode="bilinear", antialias=True)
            unit = ((small + 1) / 2).to(setting.dtype)
            tokens = self.image_encoder((unit - self.mean) / self.std).image_embeds[:, None]
        sigma = torch.randn(clips, device=setting.device).mul(1.6).add(0.7).exp()
        noise = torch.randn_like(latents)
        x_s, target = process.add_noise(latents, noise, sigma), process.target(latents, noise, sigma)
        time_ids = torch.tensor([[6.0, 127.0, 0.02]] * clips, device=setting.device)
        condition = Condition(image.to(setting.dtype), tokens.to(setting.dtype), time_ids)
        model_input, t = process.model_input(x_s, sigma).to(setting.dtype), process.timestep(sigma)
        with torch.autocast(
            "cuda" if setting.device == "cuda" else "cpu", torch.bfloat16, enabled=setting.precision == "bf16"
        ):
            output = self.branch(model_input, t, condition, self.batch.pose_maps)
        residuals = output.residuals._replace(
            down=tuple(residual.to(setting.dtype) for residual in output.residuals.down),
            mid=output.residuals.mid.to(setting.dtype),
        )
        forwards = stop_checkpointing(self.backbone)  # they have no checkpointing in the frozen network
        try:
            prediction = self.backbone.decode(self.backbone.encode(model_input, t, condition), residuals)
            nn.functional.mse_loss(prediction.float(), target).backward()
        finally:
            for module, forward in forwards:
                module.forward = forward
        nn.utils.clip_grad_norm_(self.branch.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def build_codec(setting: Setting) -> tuple[nn.Module, nn.Module]:
    """VAE and image encoder in the computation's type, as the public scripts hold them."""
    with torch.device(setting.device):
        if setting.full:
            vae = AutoencoderKLTemporalDecoder(**svd._PUBLISHED_VAE)
            image_encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**svd._PUBLISHED_CLIP))
        else:
            vae, image_encoder = tiny_vae(), tiny_image_encoder()[0]
    parts = (vae, image_encoder)
    for part in parts:
        part.to(setting.device, setting.dtype).requires_grad_(False).eval()
    return parts
