"""SVD's VAE and image encoder: pixels to latents and back, and the reference image to a `Condition`."""

from __future__ import annotations

from typing import final

import torch
from diffusers import AutoencoderKLTemporalDecoder
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from lisa_video.models.backbone import Codec, Condition

_CLIP_SIZE = 224
_ENCODED_AT_ONCE = 4  # frames; the encoder sees each by itself, and 16 of 512x512 in float32 would take 7 GB more


@final
class SVDCodec(Codec):
    """VAE and CLIP image encoder of an SVD checkpoint, frozen and in float32 (the VAE overflows in float16).

    Args:
        vae: with temporal decoder.
        image_encoder: CLIP vision tower with projection.
        feature_extractor: holds CLIP's pixel mean and standard deviation.
        unet_downscaling: factor by which the UNet halves the latent grid, for the allowed frame sizes.
        frames_per_chunk: frames that the VAE decodes at once (bounds memory). The temporal decoder looks across the
            frames of one chunk only, so the number is part of the sampling protocol.
    """

    def __init__(
        self,
        vae: AutoencoderKLTemporalDecoder,
        image_encoder: CLIPVisionModelWithProjection,
        feature_extractor: CLIPImageProcessor,
        unet_downscaling: int = 8,
        frames_per_chunk: int = 16,
    ) -> None:
        super().__init__()
        self.vae = vae.float().eval().requires_grad_(False)
        self.image_encoder = image_encoder.float().eval().requires_grad_(False)
        self.frames_per_chunk = frames_per_chunk
        self.latent_channels: int = vae.config.latent_channels
        self.latent_stride: int = 2 ** (len(vae.config.block_out_channels) - 1)
        self.embedding_width: int = image_encoder.config.projection_dim
        self.size_multiple = self.latent_stride * unet_downscaling
        self.register_buffer("clip_mean", torch.tensor(feature_extractor.image_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("clip_std", torch.tensor(feature_extractor.image_std).view(1, 3, 1, 1), persistent=False)

    @torch.no_grad()
    def encode_video(self, frames: Float[Tensor, "B F 3 H W"]) -> Float[Tensor, "B F C h w"]:
        """Pixels in [-1, 1] -> latents times the VAE's scaling factor.

        The posterior's mode, not a sample: SVD's posterior is narrow, and cached latents then equal fresh ones.
        """
        folded = rearrange(frames, "b f c h w -> (b f) c h w")
        chunks = [self.vae.encode(chunk).latent_dist.mode() for chunk in torch.split(folded, _ENCODED_AT_ONCE)]
        scaled = torch.cat(chunks) * self.vae.config.scaling_factor
        latents: Tensor = rearrange(scaled, "(b f) c h w -> b f c h w", b=len(frames))
        return latents

    @torch.no_grad()
    def decode_video(self, latents: Float[Tensor, "B F C h w"]) -> Float[Tensor, "B F 3 H W"]:
        """Scaled latents -> pixels in [-1, 1]; each clip by itself, since the decoder convolves over time."""
        clips = []
        for clip in latents.float() / self.vae.config.scaling_factor:
            chunks = torch.split(clip, self.frames_per_chunk)
            clips.append(torch.cat([self.vae.decode(chunk, num_frames=len(chunk)).sample for chunk in chunks]))
        return torch.stack(clips)

    @torch.no_grad()
    def embed_reference(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 D"]:
        """Reference image in [-1, 1] -> CLIP's embedding of it, as one token."""
        unit = (_resize_with_antialiasing(image, (_CLIP_SIZE, _CLIP_SIZE)) + 1) / 2
        embedding: Tensor = self.image_encoder((unit - self.clip_mean) / self.clip_std).image_embeds[:, None]
        return embedding

    @torch.no_grad()
    def encode_reference(
        self,
        image: Float[Tensor, "B 3 H W"],
        noise: Float[Tensor, "B 3 H W"],
        fps: Float[Tensor, " B"],
        *,
        noise_aug_strength: float,
        motion_bucket_id: float,
        embedding: Float[Tensor, "B 1 D"] | None = None,
    ) -> Condition:
        """Reference image in [-1, 1] -> what the frozen UNet is told about it.

        As SVD was trained: image latents are the mode, without the scaling factor, of the image plus noise of its
        own; the embedding is of the clean image, normalised once from [0, 1]; time ids are fps - 1, motion bucket,
        noise strength, in this order.
        """
        latents = self.vae.encode(image + noise_aug_strength * noise).latent_dist.mode()
        embedding = self.embed_reference(image) if embedding is None else embedding
        motion, strength = torch.full_like(fps, motion_bucket_id), torch.full_like(fps, noise_aug_strength)
        return Condition(latents, embedding, torch.stack([fps - 1, motion, strength], dim=1))
