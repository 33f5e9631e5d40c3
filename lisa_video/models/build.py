"""`RunConfig` -> models. The one place that decides between LISA and the baseline."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch

from lisa_video.config.schema import BackboneConfig, NoiseConfig, RunConfig
from lisa_video.diffusion.sigma import CosineSigma, LogNormalSigma, SigmaDistribution
from lisa_video.errors import UserError
from lisa_video.models.backbone import BackboneParts, SideBranch
from lisa_video.models.controlled import ControlledDenoiser
from lisa_video.models.lisa_decoder import LISADecoder


def backbone_module(name: str) -> ModuleType:
    """The module that builds a backbone: `lisa_video.models.NAME.build`, or any dotted path.

    Raises:
        UserError: there is no such module.
    """
    path = name if "." in name else f"lisa_video.models.{name}.build"
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        raise UserError(
            f"no backbone {name!r} ({error})", where="backbone.name", remedy="use svd, or the path of a module of yours"
        ) from error


def build_backbone(config: BackboneConfig) -> BackboneParts:
    """Load the frozen network and its codec."""
    parts: BackboneParts = backbone_module(config.name).build(config.path, dict(config.options))
    return parts


def build_branch(config: RunConfig, parts: BackboneParts) -> SideBranch:
    """A new side branch; its weights are a function of the run's seed."""
    torch.manual_seed(config.seed)
    _check_pose_channels(config, parts)
    branch: SideBranch = backbone_module(config.backbone.name).build_branch(
        parts.backbone,
        pose_channels=config.branch.pose_channels,
        pose_last_init=config.branch.pose_last_init,
        copy_weights=config.branch.init == "encoder",
    )
    return branch


def build_denoiser(config: RunConfig, parts: BackboneParts) -> ControlledDenoiser:
    """Backbone, new branch and, if the config has a `lisa` section, a decoder. Baseline and LISA start from one branch.

    Raises:
        UserError: the LISA layer does not exist.
    """
    branch = build_branch(config, parts)
    if config.lisa is None:
        return ControlledDenoiser(parts.backbone, branch)
    specs = branch.feature_specs
    if config.lisa.layer not in specs:
        raise UserError(
            f"the branch has no feature {config.lisa.layer!r}",
            where="lisa.layer",
            remedy=f"use one of {', '.join(specs)}",
        )
    spec = specs[config.lisa.layer]
    decoder = LISADecoder(
        spec.channels,
        spec.stride,
        parts.codec.latent_channels,
        temporal_pooling=config.lisa.temporal_pooling,
        last_init=config.lisa.last_init,
    )
    return ControlledDenoiser(parts.backbone, branch, decoder, config.lisa.layer)


def build_sigmas(config: NoiseConfig) -> SigmaDistribution:
    """The distribution of noise levels in training."""
    return LogNormalSigma(config.mean, config.std) if config.distribution == "lognormal" else CosineSigma()


def check_size(config: RunConfig, parts: BackboneParts) -> None:
    """Check the frame size against the network.

    Raises:
        UserError: a side that the network cannot take.
    """
    multiple = parts.codec.latent_stride
    sides = [("data.size", side) for side in config.data.size]
    sides += [("data.buckets", side) for *size, _ in config.data.buckets or () for side in size]
    for key, side in sides:
        if side % multiple:
            raise UserError(
                f"frame side of {side} px, but the VAE goes down by {multiple}",
                where=key,
                remedy=f"use multiples of {parts.codec.size_multiple} (best), or at least of {multiple}",
            )


def parameter_counts(model: ControlledDenoiser) -> dict[str, Any]:
    """Parameters of the frozen part, the branch and the decoder, and the decoder's share of the branch."""
    counts = {
        "frozen": sum(p.numel() for p in model.backbone.parameters()),
        "branch": sum(p.numel() for p in model.branch.parameters()),
        "decoder": sum(p.numel() for p in model.decoder.parameters()) if model.decoder is not None else 0,
    }
    return {**counts, "decoder_share": counts["decoder"] / counts["branch"]}


def _check_pose_channels(config: RunConfig, parts: BackboneParts) -> None:
    down = 2 ** (len(config.branch.pose_channels) - 1)
    if down != parts.codec.latent_stride:
        raise UserError(
            f"{len(config.branch.pose_channels)} pose encoder widths go down by {down}, the VAE by "
            f"{parts.codec.latent_stride}",
            where="branch.pose_channels",
            remedy=f"give log2({parts.codec.latent_stride}) + 1 widths",
        )


def checkpoint_activations(model: ControlledDenoiser, where: bool | str) -> None:
    """Compute the blocks' activations a second time in the backward pass instead of keeping them.

    Args:
        model: to change; its outputs stay the same.
        where: True, False, "branch", or "decoder": the frozen network's half behind the residuals, the only one of
            its halves that has a backward pass.
    """
    if where in (True, "branch"):
        model.branch.enable_gradient_checkpointing()
    if where in (True, "decoder"):
        model.backbone.enable_gradient_checkpointing()
