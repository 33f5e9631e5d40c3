"""SVD's frozen UNet behind the backbone seam."""

from __future__ import annotations

from typing import final

from diffusers import UNetSpatioTemporalConditionModel
from diffusers.models.resnet import SpatioTemporalResBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from jaxtyping import Float
from torch import Tensor

from lisa_video.diffusion.edm import EDMProcess
from lisa_video.models.backbone import Backbone, Condition, ControlResiduals
from lisa_video.models.svd.checkpointing import checkpoint_layers
from lisa_video.models.svd.forward import EncoderState, decode, encode
from lisa_video.models.svd.side_branch import with_image_latents


@final
class SVDBackbone(Backbone):
    """The stock `UNetSpatioTemporalConditionModel`, frozen, split where the residuals enter.

    Args:
        unet: the pretrained network; its parameters lose their gradients here.
    """

    units = (SpatioTemporalResBlock, TransformerSpatioTemporalModel)

    def __init__(self, unet: UNetSpatioTemporalConditionModel) -> None:
        super().__init__()
        self.process = EDMProcess()
        self.unet = unet.eval().requires_grad_(False)

    def encode(
        self, model_input: Float[Tensor, "B F C h w"], timestep: Float[Tensor, " B"], condition: Condition
    ) -> EncoderState:
        """Encoder half and middle block."""
        sample = with_image_latents(model_input, condition)
        return encode(self.unet, sample, timestep, condition.image_embedding, condition.time_ids)

    def decode(self, state: EncoderState, residuals: ControlResiduals | None) -> Float[Tensor, "B F C h w"]:
        """Decoder half, with or without residuals."""
        return decode(self.unet, state, residuals)

    def enable_gradient_checkpointing(self) -> None:
        """Keep the inputs of the decoder half's layers only."""
        checkpoint_layers(self.unet.up_blocks)
