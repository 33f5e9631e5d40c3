"""The one module that the training engine holds: frozen backbone, side branch and, with LISA, the decoder."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lisa_video.models.backbone import Backbone, Condition, SideBranch
from lisa_video.models.lisa_decoder import LISADecoder


class Prediction(NamedTuple):
    """Outputs of one training pass, all (B, F, C, h, w) float32 in the frozen network's prediction space.

    Attributes:
        controlled: m, with the branch's residuals.
        frozen: m0, without them and without gradients; None where nothing asks for it.
        lisa: D(h, t), the decoder's estimate of `target - frozen`; None in the baseline.
    """

    controlled: Tensor
    frozen: Tensor | None
    lisa: Tensor | None


@final
class ControlledDenoiser(nn.Module):
    """Frozen backbone steered by a side branch; the baseline is the same composition without a decoder.

    Args:
        backbone: frozen denoising network M.
        branch: trainable side branch S.
        decoder: LISA decoder D, or None for the baseline and for sampling.
        decoder_layer: name of the branch feature that D reads.
    """

    def __init__(
        self, backbone: Backbone, branch: SideBranch, decoder: LISADecoder | None = None, decoder_layer: str = "down_5"
    ) -> None:
        super().__init__()
        self.backbone, self.branch, self.decoder = backbone, branch, decoder
        self.feature_index = list(branch.feature_specs).index(decoder_layer) if decoder is not None else -1

    @property
    def trainable(self) -> nn.ModuleDict:
        """Branch and decoder: what is optimised, averaged and saved."""
        return nn.ModuleDict({"branch": self.branch} | ({"decoder": self.decoder} if self.decoder is not None else {}))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights; inputs are cast to it and outputs back to float32."""
        return next(self.branch.parameters()).dtype

    def forward(
        self,
        x_s: Float[Tensor, "B F C h w"],
        s: Float[Tensor, " B"],
        condition: Condition,
        pose_maps: Float[Tensor, "B F 3 H W"] | None,
        align: bool = True,
        with_frozen: bool = False,
    ) -> Prediction:
        """One pass; the frozen encoder half runs once and without gradients.

        Args:
            x_s: noisy latents.
            s: noise level of each clip.
            condition: reference image and time ids.
            pose_maps: drawn skeletons in [0, 1]; None runs the frozen network alone (the uncontrolled floor).
            align: compute what LISA needs besides, if there is a decoder; False is the plain ControlNet's pass.
            with_frozen: compute m0 in any case.
        """
        process, dtype = self.backbone.process, self.dtype
        model_input, timestep = process.model_input(x_s, s).to(dtype), process.timestep(s)
        condition = Condition(
            condition.image_latents.to(dtype), condition.image_embedding.to(dtype), condition.time_ids
        )
        with torch.no_grad():
            state = self.backbone.encode(model_input, timestep, condition)
        if pose_maps is None:
            return Prediction(self.backbone.decode(state, None).float(), None, None)

        branch = self.branch(model_input, timestep, condition, pose_maps.to(dtype))
        controlled = self.backbone.decode(state, branch.residuals).float()
        decoder = self.decoder if align else None
        if decoder is None and not with_frozen:
            return Prediction(controlled, None, None)
        with torch.no_grad():
            frozen = self.backbone.decode(state, None).float()
        if decoder is None:
            return Prediction(controlled, frozen, None)
        lisa = decoder(branch.features[self.feature_index], timestep, tuple(x_s.shape[-2:])).float()
        return Prediction(controlled, frozen, lisa)
