"""A tiny UNet with four different widths, so that no two levels can be mistaken for each other, and its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel

from lisa_video.models.backbone import Condition, ControlResiduals
from lisa_video.models.svd.backbone import SVDBackbone
from lisa_video.models.svd.side_branch import TemporalControlNet
from lisa_video.models.svd.tiny import tiny_unet

SIZES = [(1, 3, 8, 8), (2, 2, 8, 16), (1, 2, 9, 7), (2, 2, 12, 20)]
"""(B, F, h, w): square, wide, odd, and even but not a multiple of the UNet's 8."""


class Inputs(NamedTuple):
    """What backbone and branch are called with."""

    x: torch.Tensor
    timestep: torch.Tensor
    condition: Condition
    pose_maps: torch.Tensor


@pytest.fixture(scope="session")
def unet() -> UNetSpatioTemporalConditionModel:
    """Random weights, frozen; must not be changed."""
    torch.manual_seed(0)
    return SVDBackbone(tiny_unet((32, 64, 96, 128))).unet


@pytest.fixture(scope="session")
def backbone(unet) -> SVDBackbone:
    """Around `unet`."""
    return SVDBackbone(unet)


@pytest.fixture
def make_inputs() -> Callable[..., Inputs]:
    """(B, F, h, w) -> inputs with pose maps of twice the latent size."""

    def make(batch: int, frames: int, height: int, width: int, seed: int = 0) -> Inputs:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        return Inputs(
            x=normal(batch, frames, 4, height, width),
            timestep=normal(batch),
            condition=Condition(
                normal(batch, 4, height, width), normal(batch, 1, 64), torch.tensor([[6.0, 127.0, 0.02]] * batch)
            ),
            pose_maps=torch.rand(batch, frames, 3, 2 * height, 2 * width, generator=generator),
        )

    return make


@pytest.fixture
def make_branch(unet) -> Callable[..., TemporalControlNet]:
    """Settings of `from_unet` -> a branch for `make_inputs`; `opened=True` gives its zero convolutions weights."""

    def make(*, opened: bool = False, seed: int = 0, **settings: object) -> TemporalControlNet:
        torch.manual_seed(seed)
        branch = TemporalControlNet.from_unet(unet, **{"pose_channels": (4, 8), "pose_last_init": "default"} | settings)
        if opened:
            for conv in [*branch.zero_convs, branch.zero_conv_mid]:
                conv.reset_parameters()
        return branch

    return make


@pytest.fixture
def make_residuals(backbone) -> Callable[..., ControlResiduals]:
    """Inputs -> residuals shaped for them, with values filled in by a function of the shape."""

    def make(inputs: Inputs, fill: Callable[..., torch.Tensor]) -> ControlResiduals:
        state = backbone.encode(inputs.x, inputs.timestep, inputs.condition)
        return ControlResiduals(tuple(fill(skip.shape) for skip in state.skips), fill(state.middle.shape))

    return make
