"""The backbone seam: what a frozen video diffusion model, its codec and its side branch must offer.

A new backbone is one sub-package of `lisa_video.models` with a `build(options) -> BackboneParts`; nothing else is
edited. What crosses module borders are tensors in tuples, since ZeRO-3 finds parameters' users only through those.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from lisa_video.diffusion.process import NoiseProcess


class Condition(NamedTuple):
    """What the frozen network is told besides the noisy latents; everything but the pose.

    Attributes:
        image_latents: (B, C, h, w) latents of the reference image, in the backbone's own scale for it.
        image_embedding: (B, T, D) tokens of the reference image.
        time_ids: (B, 3) added time ids, in the backbone's own order.
    """

    image_latents: Tensor
    image_embedding: Tensor
    time_ids: Tensor


class ControlResiduals(NamedTuple):
    """What the side branch adds to the frozen network, each exactly once; (B*F, C_l, h_l, w_l)."""

    down: tuple[Tensor, ...]
    mid: Tensor


class BranchOutput(NamedTuple):
    """Residuals after the zero convolutions, and the features before them (same order: skips, then middle)."""

    residuals: ControlResiduals
    features: tuple[Tensor, ...]


class FeatureSpec(NamedTuple):
    """Shape of one branch feature: its channels and its down-scaling against the latent grid."""

    channels: int
    stride: int


class SideBranch(nn.Module):
    """A trainable network that reads noisy latents and a pose sequence and returns residuals and features.

    Attributes:
        new_layers: its modules that are no copies of the backbone's: pose encoder and zero convolutions.
    """

    new_layers: ClassVar[tuple[str, ...]] = ()

    @property
    def feature_specs(self) -> dict[str, FeatureSpec]:
        """Features by name, in the order of `BranchOutput.features`: "down_0", "down_1", ..., "mid"."""
        raise NotImplementedError

    def enable_gradient_checkpointing(self) -> None:
        """Keep less of the forward pass, compute it again in the backward pass; may do nothing."""

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write settings and weights as files; the backbone package's `load_branch` reads them."""
        raise NotImplementedError


class Backbone(nn.Module, ABC):
    """The frozen denoising network. Latents are (B, F, C, h, w); `timestep` is `process.timestep(s)`."""

    process: NoiseProcess
    units: tuple[type[nn.Module], ...] = ()
    """Classes of the blocks, here and in the branch, whose weights ZeRO-3 gathers at once. It looks far ahead for each
    module that it gathers alone: with thousands of small ones a step would take minutes."""

    @abstractmethod
    def encode(self, model_input: Tensor, timestep: Tensor, condition: Condition) -> Any:
        """The part of the forward pass that residuals cannot reach; opaque state for `decode`."""

    @abstractmethod
    def decode(self, state: Any, residuals: ControlResiduals | None) -> Tensor:
        """The rest of the forward pass: F of shape (B, F, C, h, w). `encode` then `decode` is the stock forward."""

    def enable_gradient_checkpointing(self) -> None:
        """As in `SideBranch`, for `decode`: `encode` has no backward pass."""


class Codec(nn.Module, ABC):
    """Pixels to latents and back, and the reference image to a `Condition`; frozen, outside the training engine."""

    latent_channels: int
    latent_stride: int
    size_multiple: int
    embedding_width: int  # D of the reference's tokens

    @abstractmethod
    def encode_video(self, frames: Float[Tensor, "B F 3 H W"]) -> Float[Tensor, "B F C h w"]:
        """Pixels in [-1, 1] -> scaled latents."""

    @abstractmethod
    def decode_video(self, latents: Float[Tensor, "B F C h w"]) -> Float[Tensor, "B F 3 H W"]:
        """Scaled latents -> pixels in [-1, 1]."""

    @abstractmethod
    def embed_reference(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B T D"]:
        """Reference image in [-1, 1] -> its tokens, which hold nothing of its noise."""

    @abstractmethod
    def encode_reference(
        self,
        image: Float[Tensor, "B 3 H W"],
        noise: Float[Tensor, "B 3 H W"],
        fps: Float[Tensor, " B"],
        *,
        noise_aug_strength: float,
        motion_bucket_id: float,
        embedding: Float[Tensor, "B T D"] | None = None,
    ) -> Condition:
        """Reference image in [-1, 1], and noise of its own, -> `Condition`; `embedding` if the tokens are known."""


class BackboneParts(NamedTuple):
    """What `build` of a backbone package returns.

    Attributes:
        backbone: the frozen denoising network.
        codec: pixels, latents and reference images.
        contract: facts that a side branch depends on (order of time ids, scales); stored with its weights and
            compared at sampling.
    """

    backbone: Backbone
    codec: Codec
    contract: dict[str, Any]
