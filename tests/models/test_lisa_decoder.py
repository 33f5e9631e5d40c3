"""The LISA decoder: any layer and latent size, zero at the start, frames joined by the pooled context only."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn

from lisa_video.models.lisa_decoder import LISADecoder, sinusoidal_embedding
from lisa_video.models.svd.side_branch import TemporalControlNet


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("size", [(1, 3, 8, 8), (2, 2, 8, 16), (1, 2, 9, 7), (2, 2, 12, 20)], ids=str)
def test_every_feature_of_the_branch_is_decoded_to_the_latent_grid(make_branch, make_inputs, size):
    inputs, branch = make_inputs(*size), make_branch()
    with torch.no_grad():
        features = branch(inputs.x, inputs.timestep, inputs.condition, inputs.pose_maps).features
        for feature, (name, spec) in zip(features, branch.feature_specs.items(), strict=True):
            decoder = LISADecoder(spec.channels, spec.stride, 4, last_init="default")
            decoded = decoder(feature, inputs.timestep, size[2:])
            assert decoded.shape == inputs.x.shape, name
            assert decoded.std() > 0, name


def test_odd_sizes_are_doubled_as_the_branch_halved_them():
    decoder, seen = LISADecoder(64, 4, 4), []
    decoder.stages[1].register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[-2:])))
    decoder(torch.randn(2, 64, 3, 2), torch.randn(1), (9, 7))  # 9 x 7 -> 5 x 4 -> 3 x 2
    assert seen == [(5, 4)]


def test_zero_initialised_decoder_gives_exactly_zero_and_learns():
    decoder = LISADecoder(64, 2, 4)
    decoded = decoder(torch.randn(6, 64, 4, 4), torch.randn(2), (8, 8))
    assert decoded.count_nonzero() == 0
    (decoded - 1).square().mean().backward()
    assert decoder.conv_out.weight.grad.count_nonzero() > 0


@pytest.mark.parametrize("pooling", [True, False])
def test_frames_influence_each_other_through_pooling_only(pooling):
    torch.manual_seed(0)
    decoder = LISADecoder(64, 2, 4, temporal_pooling=pooling, last_init="default")
    if pooling:
        decoder.context_proj.reset_parameters()
    feature, t = torch.randn(6, 64, 4, 4), torch.randn(2)
    changed = feature.clone()
    changed[2] += 1  # last frame of the first of two clips
    with torch.no_grad():
        difference = (decoder(changed, t, (8, 8)) - decoder(feature, t, (8, 8))).abs().amax(dim=(2, 3, 4))
    assert difference[0, 2] > 0
    assert (difference[0, :2] > 0).all() if pooling else (difference[0, :2] == 0).all()
    assert (difference[1] == 0).all()  # never from clip to clip


def test_fresh_pooling_changes_nothing_yet():
    torch.manual_seed(0)
    pooled = LISADecoder(64, 2, 4, temporal_pooling=True, last_init="default")
    plain = LISADecoder(64, 2, 4, temporal_pooling=False, last_init="default")
    plain.load_state_dict(pooled.state_dict(), strict=False)
    feature, t = torch.randn(4, 64, 4, 4), torch.randn(2)
    assert torch.equal(pooled(feature, t, (8, 8)), plain(feature, t, (8, 8)))


def test_constant_feature_equals_its_own_context():
    decoder = LISADecoder(64, 1, 4, last_init="default")
    nn.init.dirac_(decoder.context_proj.weight)
    frame, t = torch.randn(1, 64, 4, 4), torch.randn(1)
    plain = LISADecoder(64, 1, 4, temporal_pooling=False, last_init="default")
    plain.load_state_dict(decoder.state_dict(), strict=False)
    torch.testing.assert_close(
        decoder(frame.repeat(3, 1, 1, 1), t, (4, 4)), plain(2 * frame.repeat(3, 1, 1, 1), t, (4, 4))
    )


def test_noise_level_is_seen():
    decoder = LISADecoder(64, 1, 4, last_init="default")
    feature = torch.randn(2, 64, 4, 4)
    a, b = (decoder(feature, torch.tensor([t]), (4, 4)) for t in (-0.5, 1.0))
    assert not torch.allclose(a, b)


def test_embedding_is_that_of_diffusers():
    t = torch.tensor([-1.5, 0.0, 0.3, 500.0])
    expected = get_timestep_embedding(t, 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(sinusoidal_embedding(t, 256), expected)


def test_widths_halve_to_a_floor_and_the_first_wide_stage_is_pointwise():
    decoder = LISADecoder(1280, 8, 4)
    assert [(s.in_channels, s.out_channels, s.kernel_size) for s in decoder.stages] == [
        (1280, 640, (1, 1)),
        (640, 320, (3, 3)),
        (320, 160, (3, 3)),
    ]
    assert [s.out_channels for s in LISADecoder(96, 4, 4).stages] == [64, 64]
    assert [s.out_channels for s in LISADecoder(32, 4, 4).stages] == [32, 32]  # never widened


def test_stride_must_be_a_power_of_two():
    with pytest.raises(ValueError, match="power of two"):
        LISADecoder(64, 3, 4)


def test_published_parameter_counts():
    with torch.device("meta"):
        branch = TemporalControlNet()
        plain = LISADecoder(640, 2, 4, temporal_pooling=False)
        pooled = LISADecoder(640, 2, 4)
    spec = branch.feature_specs["down_5"]
    assert (spec.channels, spec.stride) == (640, 2)
    shares = {"published decoder": parameters(plain), "with temporal pooling": parameters(pooled)}
    whole = parameters(branch)
    for name, count in shares.items():
        print(f"{name}: {count:,} parameters, {count / whole:.4%} of the {whole:,} of the branch")
    assert parameters(plain) == pytest.approx(0.38e6, rel=0.02)
    assert parameters(plain) / parameters(branch) < 0.0015
    assert parameters(pooled) / parameters(branch) < 0.0015
    assert parameters(pooled) - parameters(plain) == 640 * 640 + 640
    assert math.isclose(parameters(plain), 257 * 640 + 641 * 320 + (320 * 9 + 1) * 4)
