"""SVD at sizes that train on two CPU cores: tiny instances of the real classes, in the real layout."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

_EMBEDDING = 64


def tiny_vae(widths: tuple[int, ...] = (32, 64, 64), latent_channels: int = 4) -> AutoencoderKLTemporalDecoder:
    """A VAE that goes down by 2 ** (len(widths) - 1); widths are multiples of 32."""
    return AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=latent_channels,
        scaling_factor=1.0,
    )


def tiny_unet(
    widths: tuple[int, ...] = (32, 64, 96, 96),
    latent_channels: int = 4,
    num_frames: int = 16,
    layers_per_block: int = 2,
) -> UNetSpatioTemporalConditionModel:
    """A UNet with SVD's block layout, hence its twelve skips with two layers a block; widths are multiples of 32."""
    return UNetSpatioTemporalConditionModel(
        in_channels=2 * latent_channels,
        out_channels=latent_channels,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * (len(widths) - 1) + ("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * (len(widths) - 1),
        block_out_channels=widths,
        layers_per_block=layers_per_block,
        num_attention_heads=tuple(width // 32 for width in widths),
        cross_attention_dim=_EMBEDDING,
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
        num_frames=num_frames,
    )


def tiny_image_encoder() -> tuple[CLIPVisionModelWithProjection, CLIPImageProcessor]:
    """A CLIP vision tower with random weights (a fixed random projection of the picture) and its processor."""
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=224,
        patch_size=32,
        projection_dim=_EMBEDDING,
    )
    return CLIPVisionModelWithProjection(config), CLIPImageProcessor(size=224, crop_size=224)


def save_checkpoint(
    folder: str | Path,
    unet: UNetSpatioTemporalConditionModel,
    vae: AutoencoderKLTemporalDecoder,
    image_encoder: CLIPVisionModelWithProjection,
    feature_extractor: CLIPImageProcessor,
    *,
    variant: str | None = None,
) -> None:
    """Write the hub's layout; variant "fp16" halves the files."""
    scheduler = EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        timestep_spacing="leading",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
    )
    pipeline = StableVideoDiffusionPipeline(vae, image_encoder, unet, scheduler, feature_extractor)
    if variant == "fp16":
        pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, variant=variant)
    if variant == "fp16":
        pipeline.to(dtype=torch.float32)


def random_checkpoint(
    folder: str | Path,
    *,
    seed: int = 0,
    widths: tuple[int, ...] = (32, 32, 32, 32),
    vae_widths: tuple[int, ...] = (32, 32, 32),
) -> None:
    """Write a checkpoint with random weights, for tests and dry runs."""
    torch.manual_seed(seed)
    save_checkpoint(folder, tiny_unet(widths), tiny_vae(vae_widths), *tiny_image_encoder())
