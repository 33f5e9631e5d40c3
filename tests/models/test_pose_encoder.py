"""The pose encoder: down to the latent grid, blind at the start if so asked."""

from __future__ import annotations

import pytest
import torch

from lisa_video.models.pose_encoder import PoseEncoder


@pytest.mark.parametrize(
    ("channels", "down"), [((4,), 1), ((4, 8), 2), ((16, 32, 96, 256), 8)], ids=["1", "2", "published"]
)
def test_each_further_width_halves_the_resolution(channels, down):
    features = PoseEncoder(32, channels, "default")(torch.rand(2, 3, 16, 24))
    assert features.shape == (2, 32, 16 // down, 24 // down)


def test_zero_initialisation_is_blind_and_default_is_not():
    pose_maps = torch.rand(1, 3, 8, 8)
    assert PoseEncoder(32, (4, 8), "zero")(pose_maps).count_nonzero() == 0
    assert PoseEncoder(32, (4, 8), "default")(pose_maps).count_nonzero() > 0


def test_zero_initialisation_still_learns():
    encoder = PoseEncoder(32, (4, 8), "zero")
    encoder(torch.rand(1, 3, 8, 8)).sum().backward()
    assert encoder.conv_out.weight.grad.count_nonzero() > 0
