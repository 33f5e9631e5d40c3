"""The convergence benchmark: its arms are the trainer's, whatever it does to be fast."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks.convergence.__main__ import _arms
from benchmarks.convergence.clips import load_clips
from benchmarks.convergence.race import Arm, Draws, Race
from eval.benchmark import BenchmarkConfig
from lisa_video.errors import UserError
from lisa_video.models.build import build_backbone, build_denoiser
from lisa_video.objective import build_lisa_weight, loss_terms

_SETTINGS = (
    "data.flip_probability=0",
    "training.gradient_accumulation=1",
    "training.gradient_checkpointing=false",
    "optimizer.warmup_samples=0",
    "optimizer.clip_norm=0.01",
)


@pytest.fixture
def race(tiny_config):
    """`race("lisa=null", ...)` -> config, parts and a race of one arm."""

    def build(*overrides: str) -> SimpleNamespace:
        config, device = tiny_config(*_SETTINGS, *overrides), torch.device("cpu")
        parts = build_backbone(config.backbone)
        draws = Draws(config, parts, load_clips(config.data, "train", parts.codec, device), config.seed)
        return SimpleNamespace(config=config, parts=parts, race=Race(draws, {"arm": Arm(config, parts, device)}))

    return build


@pytest.mark.parametrize("overrides", [("lisa=null",), ("lisa.last_init=default", "lisa.noise_weight=noisy")])
def test_a_step_of_an_arm_is_the_models_loss_clipped_and_stepped_by_adamw(race, overrides) -> None:
    ours = race(*overrides)
    config, settings = ours.config, ours.config.optimizer
    drawn = ours.race.draws()
    ours.race.draws.restart()
    ours.race.steps(1)

    model = build_denoiser(config, ours.parts)
    average = [p.detach().clone() for p in model.branch.parameters()]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, settings.lr, settings.betas, settings.eps, weight_decay=settings.weight_decay
    )
    prediction = model(drawn.x_s, drawn.sigma, drawn.condition, drawn.pose_maps)
    weight = build_lisa_weight(config.lisa)(drawn.sigma, drawn.positions)
    loss_terms(prediction, drawn.target, drawn.sigma, weight).total.backward()
    torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
    optimizer.step()
    decay = min(settings.ema_decay, (1 + 1) / (10 + 1))

    arm = ours.race.arms["arm"]
    for own, other in zip(arm.branch, model.branch.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-7)
    for own, first, now in zip(arm.average, average, model.branch.parameters(), strict=True):
        torch.testing.assert_close(own, decay * first + (1 - decay) * now.detach(), rtol=1e-4, atol=1e-7)


def test_the_same_seed_draws_the_same_steps_again_and_another_seed_does_not(race, tiny_config) -> None:
    ours = race("lisa=null")
    draws = ours.race.draws
    first, second = draws(), draws()
    draws.restart()
    again = draws()
    assert torch.equal(first.x_s, again.x_s) and torch.equal(first.sigma, again.sigma)
    assert not torch.equal(first.sigma, second.sigma)
    assert not torch.equal(Draws(ours.config, ours.parts, draws.clips, ours.config.seed + 1)().sigma, first.sigma)


def test_arms_that_differ_in_what_a_race_shares_are_refused(tiny_config_file) -> None:
    settings = BenchmarkConfig(
        title="t", base=str(tiny_config_file), out="o", arms={"a": [], "b": ["noise.mean=0.1"]}, seeds=(0,)
    )
    with pytest.raises(UserError, match="differs from the first arm in noise"):
        _arms(settings, "m", 0, [])
