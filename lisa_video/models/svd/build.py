"""Loading of SVD checkpoints in the hub's layout, from a folder or the hub, at any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from lisa_video.errors import UserError
from lisa_video.models.backbone import Backbone, BackboneParts
from lisa_video.models.svd.backbone import SVDBackbone
from lisa_video.models.svd.codec import SVDCodec
from lisa_video.models.svd.norm import STOCK_GROUPS, set_norm_groups
from lisa_video.models.svd.side_branch import TemporalControlNet

# Sizes of stabilityai/stable-video-diffusion-img2vid; its UNet is what the class makes by default.
_PUBLISHED_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "layers_per_block": 2,
}
_PUBLISHED_CLIP: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 1024,
}
_FOLDERS = ("unet", "vae", "image_encoder", "feature_extractor")


class SVDOptions(BaseModel):
    """SVD's own settings, `backbone.options` in the config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variant: str | None = None
    """File variant on the hub or in the folder, for example "fp16"."""
    frames_per_chunk: int = Field(16, gt=0)
    """Frames that the VAE handles at once."""
    norm_groups: int = Field(STOCK_GROUPS, gt=0)
    """Groups of all normalisation layers of UNet and VAE; the embedded tiny base was trained with 8."""


def check_layout(path: str) -> None:
    """Check a local folder for the sub-folders of an SVD checkpoint; hub names are left to the hub.

    Raises:
        UserError: the folder exists but is not an SVD checkpoint.
    """
    folder = Path(path)
    if folder.is_dir():
        missing = [name for name in _FOLDERS if not (folder / name).is_dir()]
        if missing:
            raise UserError(
                f"not an SVD checkpoint: no sub-folder {', '.join(missing)}",
                where=folder,
                remedy="name a folder in the layout of stabilityai/stable-video-diffusion-img2vid",
            )
    elif path.startswith((".", "/")) or path.count("/") != 1:
        raise UserError("no such folder", where=path, remedy="name a local SVD folder or a hub repository (owner/name)")


def build(path: str, options: dict[str, Any]) -> BackboneParts:
    """Load the frozen UNet and the codec.

    Args:
        path: local folder or hub repository in the layout of `stabilityai/stable-video-diffusion-img2vid`.
        options: fields of `SVDOptions`.

    Raises:
        UserError: wrong layout, an unknown option, or weights that do not fit their configuration.
    """
    check_layout(path)
    settings = _parse_options(options)
    try:
        load: dict[str, Any] = {"variant": settings.variant, "torch_dtype": torch.float32}
        unet = UNetSpatioTemporalConditionModel.from_pretrained(path, subfolder="unet", **load)
        vae = AutoencoderKLTemporalDecoder.from_pretrained(path, subfolder="vae", **load)
        image_encoder = CLIPVisionModelWithProjection.from_pretrained(
            path, subfolder="image_encoder", variant=settings.variant, dtype=torch.float32
        )
        feature_extractor = CLIPImageProcessor.from_pretrained(path, subfolder="feature_extractor")
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise UserError(
            f"cannot load the SVD checkpoint ({first_line})",
            where=path,
            remedy="download it again, or set backbone.options.variant to the variant that the files carry",
        ) from error
    for module in (unet, vae):
        set_norm_groups(module, settings.norm_groups)
    return parts_from_modules(unet, vae, image_encoder, feature_extractor, settings.frames_per_chunk)


def outline(path: str, options: dict[str, Any]) -> BackboneParts:
    """The same parts without weights, on the meta device: for plans of runs whose weights are elsewhere.

    Args:
        path: local folder; or any hub repository, for which the published sizes are taken.
        options: fields of `SVDOptions`.

    Raises:
        UserError: wrong layout, or an unknown option.
    """
    check_layout(path)
    settings, folder = _parse_options(options), Path(path)
    configs = {name: folder / name / "config.json" for name in ("unet", "vae", "image_encoder")}
    local = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in configs.items() if file.is_file()}
    with torch.device("meta"):
        unet = UNetSpatioTemporalConditionModel.from_config(local.get("unet", {}))
        vae = AutoencoderKLTemporalDecoder.from_config(local.get("vae", _PUBLISHED_VAE))
        clip = CLIPVisionConfig(**local.get("image_encoder", _PUBLISHED_CLIP))
        image_encoder = CLIPVisionModelWithProjection(clip)
    for module in (unet, vae):
        set_norm_groups(module, settings.norm_groups)
        module.to("meta")  # diffusers makes some parameters on the CPU whatever the device
    return parts_from_modules(unet, vae, image_encoder, CLIPImageProcessor(), settings.frames_per_chunk)


def _parse_options(options: dict[str, Any]) -> SVDOptions:
    try:
        return SVDOptions.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}",
            where="backbone.options",
            remedy=f"use {', '.join(SVDOptions.model_fields)}",
        ) from error


def parts_from_modules(
    unet: UNetSpatioTemporalConditionModel,
    vae: AutoencoderKLTemporalDecoder,
    image_encoder: CLIPVisionModelWithProjection,
    feature_extractor: CLIPImageProcessor,
    frames_per_chunk: int = 16,
) -> BackboneParts:
    """Put loaded (or freshly made) modules behind the seam."""
    codec = SVDCodec(vae, image_encoder, feature_extractor, 2**unet.num_upsamplers, frames_per_chunk)
    contract = {
        "backbone": "svd",
        "prediction": "EDM v, c_noise = ln(sigma)/4",
        "time_ids": ["fps - 1", "motion_bucket_id", "noise_aug_strength"],
        "norm_groups": unet.conv_norm_out.num_groups,
        "latent_channels": codec.latent_channels,
        "latent_stride": codec.latent_stride,
        "latent_scaling_factor": vae.config.scaling_factor,
        "image_latents": "mode, unscaled",
        "clip_input": "[0,1], normalised once, 224 px",
    }
    return BackboneParts(SVDBackbone(unet), codec, contract)


def build_branch(backbone: Backbone, **settings: Any) -> TemporalControlNet:
    """A side branch for this backbone; settings as in `TemporalControlNet.from_unet`."""
    assert isinstance(backbone, SVDBackbone)
    branch: TemporalControlNet = TemporalControlNet.from_unet(backbone.unet, **settings)
    return branch


def load_branch(path: str) -> TemporalControlNet:
    """Read a side branch from its diffusers folder."""
    branch: TemporalControlNet = TemporalControlNet.from_pretrained(path, torch_dtype=torch.float32)
    return branch
