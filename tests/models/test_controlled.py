"""The composition: gradients reach branch and decoder only, and the baseline is LISA without its decoder."""

from __future__ import annotations

import copy

import pytest
import torch

from lisa_video.models.controlled import ControlledDenoiser
from lisa_video.models.lisa_decoder import LISADecoder

SIGMA = torch.tensor([0.5, 3.0])


@pytest.fixture
def inputs(make_inputs):
    return make_inputs(2, 2, 8, 8)


@pytest.fixture
def lisa_model(backbone, make_branch) -> ControlledDenoiser:
    branch = make_branch(opened=True)
    spec = branch.feature_specs["down_5"]
    return ControlledDenoiser(backbone, branch, LISADecoder(*spec, 4, last_init="default"), "down_5")


def test_predictions_of_lisa_and_baseline(lisa_model, inputs):
    prediction = lisa_model(inputs.x, SIGMA, inputs.condition, inputs.pose_maps)
    assert all(p.shape == inputs.x.shape and p.dtype == torch.float32 for p in prediction)
    baseline = ControlledDenoiser(lisa_model.backbone, lisa_model.branch)
    plain = baseline(inputs.x, SIGMA, inputs.condition, inputs.pose_maps)
    assert plain.frozen is None and plain.lisa is None
    assert torch.equal(plain.controlled, prediction.controlled)


def test_frozen_prediction_is_the_uncontrolled_one_without_gradient(lisa_model, inputs):
    prediction = lisa_model(inputs.x, SIGMA, inputs.condition, inputs.pose_maps)
    alone = lisa_model(inputs.x, SIGMA, inputs.condition, None)
    assert torch.equal(prediction.frozen, alone.controlled) and not prediction.frozen.requires_grad
    assert alone.frozen is None and alone.lisa is None


def test_network_sees_the_process_view_of_the_latents(lisa_model, inputs):
    process, seen = lisa_model.backbone.process, []
    handle = lisa_model.backbone.unet.conv_in.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    lisa_model(inputs.x, SIGMA, inputs.condition, None)
    handle.remove()
    latents, image = seen[0].unflatten(0, (2, 2)).split(4, dim=2)
    assert torch.equal(latents, process.model_input(inputs.x, SIGMA))
    assert torch.equal(image, inputs.condition.image_latents[:, None].expand_as(image))


def test_one_backward_reaches_every_trainable_parameter_and_no_frozen_one(lisa_model, inputs):
    prediction = lisa_model(inputs.x, SIGMA, inputs.condition, inputs.pose_maps)
    (prediction.controlled.square().mean() + (prediction.lisa - 1).square().mean()).backward()
    assert {id(p) for p in lisa_model.parameters() if p.requires_grad} == {
        id(p) for p in lisa_model.trainable.parameters()
    }
    assert all(p.grad is None for p in lisa_model.backbone.parameters())
    without = {name for name, p in lisa_model.trainable.named_parameters() if p.grad is None}
    assert not without
    # One context token: softmax over it is 1 whatever the query, so queries and keys of cross-attention rest.
    resting = {name for name, p in lisa_model.trainable.named_parameters() if p.grad.count_nonzero() == 0}
    unexplained = {n for n in resting if not any(part in n for part in ("attn2.to_q", "attn2.to_k", "norm2"))}
    assert not unexplained


def test_published_initialisation_learns_at_once_but_in_the_last_layers_only(backbone, make_branch, inputs):
    # Fresh zero convolutions: only they get gradients in the first step of the baseline.
    model = ControlledDenoiser(backbone, make_branch())
    model(inputs.x, SIGMA, inputs.condition, inputs.pose_maps).controlled.square().mean().backward()
    moving = {name for name, p in model.branch.named_parameters() if p.grad.count_nonzero() > 0}
    assert moving and all(name.startswith("zero_conv") for name in moving)
    assert {name for name, _ in model.branch.named_parameters() if name.startswith("zero_conv")} == moving


def test_lisa_reaches_the_branch_past_its_zero_convolutions(backbone, make_branch, inputs):
    branch = make_branch()
    decoder = LISADecoder(*branch.feature_specs["down_5"], 4, last_init="default")
    model = ControlledDenoiser(backbone, branch, decoder, "down_5")
    model(inputs.x, SIGMA, inputs.condition, inputs.pose_maps).lisa.square().mean().backward()
    assert branch.pose_encoder.conv_in.weight.grad.count_nonzero() > 0
    assert branch.conv_in.weight.grad.count_nonzero() > 0
    # Nothing behind the hooked feature: down_5 is the end of the second level.
    assert branch.down_blocks[2].resnets[0].spatial_res_block.conv1.weight.grad is None
    assert branch.zero_convs[0].weight.grad is None


def test_decoder_reads_the_named_feature(backbone, make_branch, inputs):
    branch, t = make_branch(), backbone.process.timestep(SIGMA)
    with torch.no_grad():
        view = backbone.process.model_input(inputs.x, SIGMA)
        features = branch(view, t, inputs.condition, inputs.pose_maps).features
        for number, name in ((0, "down_0"), (5, "down_5"), (12, "mid")):
            model = ControlledDenoiser(
                backbone, branch, LISADecoder(*branch.feature_specs[name], 4, last_init="default"), name
            )
            prediction = model(inputs.x, SIGMA, inputs.condition, inputs.pose_maps)
            assert torch.equal(prediction.lisa, model.decoder(features[number], t, (8, 8))), name


def test_sampling_does_not_depend_on_the_decoder(lisa_model, inputs):
    without = ControlledDenoiser(lisa_model.backbone, lisa_model.branch)
    with torch.no_grad():
        a, b = (m(inputs.x, SIGMA, inputs.condition, inputs.pose_maps).controlled for m in (lisa_model, without))
    assert torch.equal(a, b)


def test_half_precision_weights_give_float32_predictions(backbone, make_branch, inputs):
    model = ControlledDenoiser(backbone, make_branch(opened=True))
    exact = model(inputs.x, SIGMA, inputs.condition, inputs.pose_maps).controlled
    half = copy.deepcopy(model).to(torch.bfloat16)  # a copy: the backbone is every test's
    rounded = half(inputs.x, SIGMA, inputs.condition, inputs.pose_maps).controlled
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().mean() < 0.05 * exact.abs().mean()
