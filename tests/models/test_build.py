"""Config -> models: LISA or baseline from one branch, and users' mistakes told with their remedy."""

from __future__ import annotations

import shutil

import pytest
import torch

from lisa_video.config.schema import BackboneConfig, NoiseConfig
from lisa_video.diffusion.sigma import CosineSigma, LogNormalSigma
from lisa_video.errors import UserError
from lisa_video.models.build import (
    backbone_module,
    build_backbone,
    build_branch,
    build_denoiser,
    build_sigmas,
    check_size,
    parameter_counts,
)
from lisa_video.models.svd.tiny import tiny_vae


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    own, theirs = a.state_dict(), b.state_dict()
    return own.keys() == theirs.keys() and all(torch.equal(own[key], theirs[key]) for key in own)


def test_baseline_and_lisa_start_from_the_same_branch(tiny_config, tiny_parts):
    lisa, baseline = (build_denoiser(tiny_config(*o), tiny_parts) for o in ((), ("lisa=null",)))
    assert lisa.decoder is not None and baseline.decoder is None
    assert same_weights(lisa.branch, baseline.branch)
    assert list(baseline.trainable) == ["branch"] and list(lisa.trainable) == ["branch", "decoder"]


def test_branch_is_a_function_of_the_seed(tiny_config, tiny_parts):
    torch.manual_seed(123)
    first = build_branch(tiny_config(), tiny_parts)
    torch.manual_seed(456)
    assert same_weights(first, build_branch(tiny_config(), tiny_parts))
    assert not same_weights(first, build_branch(tiny_config("seed=1"), tiny_parts))


def test_settings_of_branch_and_decoder_arrive(tiny_config, tiny_parts):
    model = build_denoiser(
        tiny_config(
            "seed=5",
            "branch.init=random",
            "branch.pose_last_init=zero",
            "lisa.layer=mid",
            "lisa.temporal_pooling=false",
        ),
        tiny_parts,
    )
    assert not torch.equal(model.branch.conv_in.weight, tiny_parts.backbone.unet.conv_in.weight)
    assert model.branch.pose_encoder.conv_out.weight.count_nonzero() == 0
    assert model.feature_index == 12 and len(model.decoder.stages) == 3 and model.decoder.context_proj is None


def test_last_init_arrives(tiny_config, tiny_parts):
    for value, zero in (("zero", True), ("default", False)):
        decoder = build_denoiser(tiny_config(f"lisa.last_init={value}"), tiny_parts).decoder
        assert (decoder.conv_out.weight.count_nonzero() == 0) == zero


def test_unknown_layer_is_refused(tiny_config, tiny_parts):
    with pytest.raises(UserError, match=r"no feature 'down_12'.*down_0, .*mid"):
        build_denoiser(tiny_config("lisa.layer=down_12"), tiny_parts)


def test_pose_encoder_must_reach_the_latent_grid(tiny_config, tiny_parts):
    with pytest.raises(UserError, match=r"2 pose encoder widths go down by 2, the VAE by 4"):
        build_denoiser(tiny_config("branch.pose_channels=[4,8]"), tiny_parts)


def test_frame_size_must_suit_the_vae(tiny_config, tiny_parts):
    check_size(tiny_config("data.size=[36,32]"), tiny_parts)
    with pytest.raises(UserError, match=r"frame side of 34 px, but the VAE goes down by 4.*multiples of 32"):
        check_size(tiny_config("data.size=[32,34]"), tiny_parts)


def test_noise_settings_choose_the_distribution():
    lognormal = build_sigmas(NoiseConfig(mean=-1.0, std=0.5))
    assert isinstance(lognormal, LogNormalSigma) and (lognormal.mean, lognormal.std) == (-1.0, 0.5)
    assert isinstance(build_sigmas(NoiseConfig(distribution="cosine")), CosineSigma)


def test_parameter_counts_add_up(tiny_config, tiny_parts):
    model = build_denoiser(tiny_config(), tiny_parts)
    counts = parameter_counts(model)
    assert counts["frozen"] + counts["branch"] + counts["decoder"] == sum(p.numel() for p in model.parameters())
    assert counts["branch"] + counts["decoder"] == sum(p.numel() for p in model.trainable.parameters())
    assert counts["decoder_share"] == counts["decoder"] / counts["branch"] > 0
    assert parameter_counts(build_denoiser(tiny_config("lisa=null"), tiny_parts))["decoder"] == 0


def test_backbone_may_be_any_module():
    assert backbone_module("svd") is backbone_module("lisa_video.models.svd.build")


@pytest.mark.parametrize("name", ["wan", "no.such.module"])
def test_unknown_backbone_is_refused(name):
    with pytest.raises(UserError, match="no backbone"):
        backbone_module(name)


def test_folder_without_an_svd_checkpoint_is_refused(tiny_checkpoint, tmp_path):
    copy = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, copy)
    shutil.rmtree(copy / "vae")
    with pytest.raises(UserError, match="no sub-folder vae"):
        build_backbone(BackboneConfig(path=str(copy)))


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "nowhere", "a/b/c"])
def test_missing_folder_is_refused_without_asking_the_hub(path):
    with pytest.raises(UserError, match="no such folder"):
        build_backbone(BackboneConfig(path=path))


def test_missing_variant_is_refused(tiny_checkpoint):
    with pytest.raises(UserError, match=r"cannot load.*variant"):
        build_backbone(BackboneConfig(path=str(tiny_checkpoint), options={"variant": "fp16"}))


def test_weights_that_do_not_fit_are_refused(tiny_checkpoint, tmp_path):
    copy = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, copy)
    tiny_vae((32, 64)).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "diffusion_pytorch_model.safetensors", copy / "vae")
    with pytest.raises(UserError, match="cannot load the SVD checkpoint"):
        build_backbone(BackboneConfig(path=str(copy)))


@pytest.mark.parametrize("options", [{"frames_per_chunks": 4}, {"frames_per_chunk": 0}, {"variant": 16}], ids=str)
def test_wrong_option_is_refused(tiny_checkpoint, options):
    with pytest.raises(UserError, match=rf"backbone.options: {next(iter(options))}: .*variant, frames_per_chunk"):
        build_backbone(BackboneConfig(path=str(tiny_checkpoint), options=options))
