"""The temporal ControlNet of SVD: a trainable copy of the UNet's encoder half that reads a pose sequence.

A `diffusers` model, so `save_pretrained` and `from_pretrained` use the hub's layout (config.json, safetensors).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, final

import torch
from diffusers import ConfigMixin, ModelMixin, UNetSpatioTemporalConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_3d_blocks import UNetMidBlockSpatioTemporal, get_down_block
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lisa_video.models.backbone import BranchOutput, Condition, ControlResiduals, FeatureSpec, SideBranch
from lisa_video.models.pose_encoder import PoseEncoder
from lisa_video.models.svd.checkpointing import checkpoint_layers
from lisa_video.models.svd.forward import encode
from lisa_video.models.svd.norm import STOCK_GROUPS, set_norm_groups

# Settings of the UNet that its encoder half depends on, by their names in diffusers.
_SHARED_CONFIG = (
    "in_channels",
    "down_block_types",
    "block_out_channels",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
    "layers_per_block",
    "cross_attention_dim",
    "transformer_layers_per_block",
    "num_attention_heads",
)
# Modules of the UNet that make up its encoder half.
_SHARED_MODULES = (
    "conv_in",
    "time_proj",
    "time_embedding",
    "add_time_proj",
    "add_embedding",
    "down_blocks",
    "mid_block",
)


def _zero_conv(channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, channels, 1)
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


@final
class TemporalControlNet(ModelMixin, SideBranch, ConfigMixin):  # type: ignore[misc]
    """Side branch with the spatial and temporal blocks of the SVD encoder, a pose encoder, and zero convolutions.

    Arguments down to `num_attention_heads` are those of `UNetSpatioTemporalConditionModel`; sequences come as tuples
    or, out of a config.json, as lists.

    Args:
        pose_channels: widths of the pose encoder, from the pixel grid to the latent grid.
        pose_last_init: see `PoseEncoder`.
        norm_groups: groups of all normalisation layers, see `norm.set_norm_groups`.
    """

    new_layers: ClassVar[tuple[str, ...]] = ("pose_encoder", "zero_convs", "zero_conv_mid")

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int = 8,
        down_block_types: Sequence[str] = (
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "DownBlockSpatioTemporal",
        ),
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 768,
        layers_per_block: int = 2,
        cross_attention_dim: int = 1024,
        transformer_layers_per_block: int = 1,
        num_attention_heads: Sequence[int] = (5, 10, 20, 20),
        pose_channels: Sequence[int] = (16, 32, 96, 256),
        pose_last_init: Literal["zero", "default"] = "zero",
        norm_groups: int = STOCK_GROUPS,
    ) -> None:
        super().__init__()
        widths = list(block_out_channels)
        embed_dim = widths[0] * 4
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.time_proj = Timesteps(widths[0], True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(widths[0], embed_dim)
        self.add_time_proj = Timesteps(addition_time_embed_dim, True, downscale_freq_shift=0)
        self.add_embedding = TimestepEmbedding(projection_class_embeddings_input_dim, embed_dim)
        self.pose_encoder = PoseEncoder(widths[0], tuple(pose_channels), pose_last_init)
        self.down_blocks = nn.ModuleList(
            get_down_block(
                kind,
                num_layers=layers_per_block,
                transformer_layers_per_block=transformer_layers_per_block,
                in_channels=widths[max(level - 1, 0)],
                out_channels=widths[level],
                temb_channels=embed_dim,
                add_downsample=level < len(widths) - 1,
                resnet_eps=1e-5,
                resnet_act_fn="silu",
                cross_attention_dim=cross_attention_dim,
                num_attention_heads=num_attention_heads[level],
            )
            for level, kind in enumerate(down_block_types)
        )
        self.mid_block = UNetMidBlockSpatioTemporal(
            widths[-1],
            temb_channels=embed_dim,
            transformer_layers_per_block=transformer_layers_per_block,
            cross_attention_dim=cross_attention_dim,
            num_attention_heads=num_attention_heads[-1],
        )
        *skips, mid = self.feature_specs.values()
        self.zero_convs = nn.ModuleList(_zero_conv(spec.channels) for spec in skips)
        self.zero_conv_mid = _zero_conv(mid.channels)
        set_norm_groups(self, norm_groups)

    @property
    def feature_specs(self) -> dict[str, FeatureSpec]:
        """Features "down_0" (after the first convolution) to "down_11", and "mid", for four levels of two layers."""
        settings: Any = self.config
        widths, layers = list(settings.block_out_channels), int(settings.layers_per_block)
        skips = [FeatureSpec(widths[0], 1)]
        for level, width in enumerate(widths):
            skips += [FeatureSpec(width, 2**level)] * layers
            if level < len(widths) - 1:
                skips.append(FeatureSpec(width, 2 ** (level + 1)))
        named = {f"down_{number}": spec for number, spec in enumerate(skips)}
        return {**named, "mid": FeatureSpec(widths[-1], 2 ** (len(widths) - 1))}

    @classmethod
    def from_unet(
        cls,
        unet: UNetSpatioTemporalConditionModel,
        *,
        pose_channels: Sequence[int],
        pose_last_init: Literal["zero", "default"] = "zero",
        copy_weights: bool = True,
    ) -> TemporalControlNet:
        """A branch shaped like the UNet's encoder half and, unless told otherwise, with its weights."""
        shared: dict[str, Any] = {name: unet.config[name] for name in _SHARED_CONFIG}
        branch: TemporalControlNet = cls(
            **shared,
            pose_channels=pose_channels,
            pose_last_init=pose_last_init,
            norm_groups=unet.conv_norm_out.num_groups,
        )
        if copy_weights:
            for name in _SHARED_MODULES:
                getattr(branch, name).load_state_dict(getattr(unet, name).state_dict())
        return branch

    def enable_gradient_checkpointing(self) -> None:
        """Keep the layers' inputs only."""
        checkpoint_layers(self)

    def forward(
        self,
        model_input: Float[Tensor, "B F C h w"],
        timestep: Float[Tensor, " B"],
        condition: Condition,
        pose_maps: Float[Tensor, "B F 3 H W"],
    ) -> BranchOutput:
        """Residuals for the frozen UNet and the features before the zero convolutions.

        Args:
            model_input: noisy latents as the network sees them, without the image latents.
            timestep: `process.timestep(s)`.
            condition: reference image and time ids.
            pose_maps: drawn skeletons in [0, 1].
        """
        pose_features = self.pose_encoder(rearrange(pose_maps, "b f c h w -> (b f) c h w"))
        sample = with_image_latents(model_input, condition)
        state = encode(self, sample, timestep, condition.image_embedding, condition.time_ids, pose_features)
        residuals = ControlResiduals(
            tuple(conv(skip) for conv, skip in zip(self.zero_convs, state.skips, strict=True)),
            self.zero_conv_mid(state.middle),
        )
        return BranchOutput(residuals, (*state.skips, state.middle))


def with_image_latents(model_input: Tensor, condition: Condition) -> Tensor:
    """Concatenate the image latents, repeated over frames, over channels: (B, F, C + C_image, h, w)."""
    repeated = condition.image_latents[:, None].expand(-1, model_input.shape[1], -1, -1, -1)
    return torch.cat([model_input, repeated.to(model_input.dtype)], dim=2)
