"""The split forward is the stock UNet, bit for bit, and adds each residual exactly once."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from lisa_video.models.backbone import ControlResiduals
from lisa_video.models.svd.backbone import SVDBackbone
from lisa_video.models.svd.side_branch import TemporalControlNet, with_image_latents
from lisa_video.models.svd.tiny import tiny_unet

SIZES = pytest.mark.parametrize("size", [(1, 3, 8, 8), (2, 2, 8, 16), (1, 2, 9, 7), (2, 2, 12, 20)], ids=str)
NUM_SKIPS = 12


def stock(unet, inputs):
    """diffusers' own forward pass on the same inputs."""
    with torch.no_grad():
        return unet(
            with_image_latents(inputs.x, inputs.condition),
            inputs.timestep,
            inputs.condition.image_embedding,
            inputs.condition.time_ids,
        ).sample


@contextmanager
def residuals_by_hand(unet, residuals):
    """Add residuals to the stock UNet from outside: where its up blocks receive the middle and their skips."""
    handles, stop = [], NUM_SKIPS
    for number, block in enumerate(unet.up_blocks):
        start = stop - len(block.resnets)

        def add(module, args, kwargs, own=residuals.down[start:stop], first=number == 0):
            skips = kwargs["res_hidden_states_tuple"]
            kwargs["res_hidden_states_tuple"] = tuple(a + b for a, b in zip(skips, own, strict=True))
            if first:
                kwargs["hidden_states"] = kwargs["hidden_states"] + residuals.mid
            return args, kwargs

        handles.append(block.register_forward_pre_hook(add, with_kwargs=True))
        stop = start
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@SIZES
def test_encode_then_decode_is_the_stock_forward_bit_for_bit(unet, backbone, make_inputs, size):
    inputs = make_inputs(*size)
    with torch.no_grad():
        ours = backbone.decode(backbone.encode(inputs.x, inputs.timestep, inputs.condition), None)
    assert ours.shape == inputs.x.shape
    assert torch.equal(ours, stock(unet, inputs))


@pytest.mark.parametrize("layers", [1, 4])
def test_the_split_forward_fits_any_depth(layers, make_inputs):
    inputs = make_inputs(1, 2, 8, 8)
    torch.manual_seed(0)
    unet = tiny_unet((32, 32, 32, 32), layers_per_block=layers)
    backbone, branch = SVDBackbone(unet), TemporalControlNet.from_unet(unet, pose_channels=(8, 16))
    with torch.no_grad():
        state = backbone.encode(inputs.x, inputs.timestep, inputs.condition)
        output = branch(inputs.x, inputs.timestep, inputs.condition, inputs.pose_maps)
    assert torch.equal(backbone.decode(state, None), stock(unet, inputs))
    assert torch.equal(backbone.decode(state, output.residuals), stock(unet, inputs))  # zero convolutions
    assert len(branch.feature_specs) == len(output.features) == 4 * layers + 5


def test_one_encoding_serves_several_decodings(backbone, make_inputs, make_residuals):
    inputs = make_inputs(1, 2, 8, 8)
    state = backbone.encode(inputs.x, inputs.timestep, inputs.condition)
    first = backbone.decode(state, None)
    backbone.decode(state, make_residuals(inputs, torch.ones))
    assert torch.equal(backbone.decode(state, None), first)


@SIZES
def test_zero_residuals_equal_none_bit_for_bit(backbone, make_inputs, make_residuals, size):
    inputs = make_inputs(*size)
    state = backbone.encode(inputs.x, inputs.timestep, inputs.condition)
    zeros = make_residuals(inputs, torch.zeros)
    assert torch.equal(backbone.decode(state, zeros), backbone.decode(state, None))


@SIZES
def test_all_residuals_together_equal_those_added_by_hand(unet, backbone, make_inputs, make_residuals, size):
    inputs = make_inputs(*size)
    torch.manual_seed(1)
    residuals = make_residuals(inputs, torch.randn)
    with torch.no_grad():
        ours = backbone.decode(backbone.encode(inputs.x, inputs.timestep, inputs.condition), residuals)
    with residuals_by_hand(unet, residuals):
        assert torch.equal(ours, stock(unet, inputs))


def test_each_residual_is_added_exactly_once(unet, backbone, make_inputs, make_residuals):
    inputs = make_inputs(1, 2, 8, 8)
    torch.manual_seed(1)
    noise, zeros = make_residuals(inputs, torch.randn), make_residuals(inputs, torch.zeros)
    without = stock(unet, inputs)
    state = backbone.encode(inputs.x, inputs.timestep, inputs.condition)
    for number in range(NUM_SKIPS + 1):
        values = [*zeros.down, zeros.mid]
        values[number] = [*noise.down, noise.mid][number]
        one = ControlResiduals(tuple(values[:-1]), values[-1])
        ours = backbone.decode(state, one)
        with residuals_by_hand(unet, one):
            assert torch.equal(ours, stock(unet, inputs)), f"residual {number}"
        assert not torch.equal(ours, without), f"residual {number} has no effect"


def test_a_missing_residual_is_refused(backbone, make_inputs, make_residuals):
    inputs = make_inputs(1, 2, 8, 8)
    state = backbone.encode(inputs.x, inputs.timestep, inputs.condition)
    residuals = make_residuals(inputs, torch.zeros)
    with pytest.raises(ValueError, match="zip"):
        backbone.decode(state, residuals._replace(down=residuals.down[:-1]))


def test_backbone_is_frozen_and_in_evaluation_mode(backbone):
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not any(module.training for module in backbone.unet.modules())
