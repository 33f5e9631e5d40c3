"""The door to DeepSpeed: what the dictionary says, and what really reaches the optimizer at each ZeRO stage."""

import math

import pytest
import torch

from lisa_video.errors import UserError
from lisa_video.models.build import build_backbone, build_denoiser
from lisa_video.training.deepspeed_config import deepspeed_config
from lisa_video.training.engine import Fragment
from lisa_video.training.optimizer import parameter_groups

STAGES = (0, 1, 2, 3)
# With a large eps AdamW's first step is almost linear in the gradient: the update shows what was clipped to.
LINEAR = ("optimizer.lr=1000", "optimizer.eps=1000", "optimizer.weight_decay=0")


def expected_step(gradient, lr=1000.0, eps=1000.0):
    """AdamW's first step without decay: without their bias, its moments are g and g^2."""
    return -lr * gradient / (gradient.abs() + eps)


def test_the_dictionary_is_derived_from_the_config(tiny_config):
    config = tiny_config(
        "training.micro_batch_size=3",
        "training.gradient_accumulation=5",
        "training.precision=bf16",
        "training.zero_stage=2",
        "optimizer.clip_norm=0.7",
    )
    derived = deepspeed_config(config)
    assert derived["train_micro_batch_size_per_gpu"] == 3
    assert derived["gradient_accumulation_steps"] == 5
    assert derived["gradient_clipping"] == 0.7
    assert derived["bf16"] == {"enabled": True}
    assert derived["zero_optimization"]["stage"] == 2
    assert deepspeed_config(tiny_config())["bf16"] == {"enabled": False}


@pytest.mark.parametrize("stage", STAGES)
def test_only_trainable_weights_move(two_weights, step, stage):
    engine = two_weights(f"training.zero_stage={stage}", "optimizer.lr=0.1", "optimizer.weight_decay=0")
    assert torch.allclose(step(engine, (1, -2, 3, -4)), torch.tensor([0.9, 1.1, 0.9, 1.1]), atol=1e-5)
    with engine.gathered(engine.model.frozen):
        assert torch.equal(engine.model.frozen, torch.ones(2))


@pytest.mark.parametrize("stage", STAGES)
def test_the_norm_is_joint_and_clips_all_parameters_alike(two_weights, step, stage):
    engine = two_weights(f"training.zero_stage={stage}", "optimizer.clip_norm=1.0", *LINEAR)
    gradient = torch.tensor([2.0, -4.0, 4.0, 8.0])  # norm 10; each parameter's own: 6 and 8
    moved = step(engine, tuple(gradient.tolist())) - 1
    assert math.isclose(engine.gradient_norm, 10.0, rel_tol=1e-5)
    torch.testing.assert_close(moved, expected_step(gradient / 10), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_below_the_limit_are_not_touched(two_weights, step, stage):
    engine = two_weights(f"training.zero_stage={stage}", "optimizer.clip_norm=20.0", *LINEAR)
    gradient = torch.tensor([2.0, -4.0, 4.0, 8.0])
    torch.testing.assert_close(step(engine, tuple(gradient.tolist())) - 1, expected_step(gradient), rtol=1e-4, atol=0)


@pytest.mark.parametrize("stage", STAGES)
def test_accumulation_averages_micro_batches_before_it_clips(two_weights, step, stage):
    engine = two_weights(f"training.zero_stage={stage}", "training.gradient_accumulation=2", *LINEAR)
    first, second = torch.tensor([6.0, 0.0, 4.0, 8.0]), torch.tensor([-2.0, -8.0, 4.0, 8.0])
    mean = (first + second) / 2  # [2, -4, 4, 8], norm 10
    assert torch.equal(step(engine, tuple(first.tolist())), torch.ones(4))  # no boundary yet
    moved = step(engine, tuple(second.tolist())) - 1
    assert math.isclose(engine.gradient_norm, 10.0, rel_tol=1e-5)
    torch.testing.assert_close(moved, expected_step(mean / 10), rtol=1e-4, atol=1e-6)


def test_warm_up_counts_samples(two_weights):
    engine = two_weights("optimizer.lr=1.0", "optimizer.warmup_samples=9")
    rates = [engine.set_rate(samples, 200 - samples) for samples in (0, 4, 8, 9, 100, 199)]
    assert rates == pytest.approx([0.1, 0.5, 0.9, 1.0, 1.0, 1.0])
    assert two_weights("optimizer.lr=1.0").set_rate(0, 1) == 1.0


def test_cool_down_counts_the_samples_that_are_left(two_weights):
    engine = two_weights("optimizer.lr=2.0", "optimizer.cooldown=0.4")
    rates = [engine.set_rate(seen, 100 - seen) for seen in (0, 59, 60, 70, 98)]
    assert rates == pytest.approx([2.0, 2.0, 2.0, 1.5, 0.1])
    both = two_weights("optimizer.lr=1.0", "optimizer.warmup_samples=9", "optimizer.cooldown=1")
    assert both.set_rate(4, 4) == pytest.approx(0.25)  # a run of eight clips, shorter than the warm-up


@pytest.mark.parametrize("stage", STAGES)
def test_the_rate_reaches_the_optimizer(two_weights, step, stage):
    engine = two_weights(
        f"training.zero_stage={stage}", "optimizer.lr=0.1", "optimizer.warmup_samples=3", "optimizer.weight_decay=0"
    )
    engine.set_rate(0, 99)  # a quarter of the rate
    after_one = step(engine, (1, 1, 1, 1))
    engine.set_rate(50, 49)  # all of it; Adam's step is the rate while the gradient stays
    after_two = step(engine, (1, 1, 1, 1))
    torch.testing.assert_close(1 - after_one, torch.full((4,), 0.025), rtol=1e-4, atol=0)
    torch.testing.assert_close(after_one - after_two, torch.full((4,), 0.1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("stage", STAGES)
def test_bf16_trains_float32_masters(two_weights, step, stage):
    engine = two_weights(
        "training.precision=bf16", f"training.zero_stage={stage}", "optimizer.lr=0.0005", "optimizer.weight_decay=0"
    )
    assert engine.model.a.dtype == engine.model.frozen.dtype == torch.bfloat16
    # Around 1, bfloat16 cannot see a step of 0.0005, but the sum of 16 of them.
    assert torch.equal(step(engine, (1, 1, 1, 1)), torch.ones(4))
    assert math.isclose(engine.gradient_norm, 2.0, rel_tol=1e-2)
    for _ in range(15):
        moved = step(engine, (1, 1, 1, 1))
    torch.testing.assert_close(moved, torch.full((4,), 0.992), rtol=0, atol=0.002)
    masters = torch.cat([values for _, values in engine.whole(engine.masters())])
    torch.testing.assert_close(masters, torch.full((4,), 0.992), rtol=0, atol=1e-5)  # finer than bfloat16


def test_new_layers_and_the_decoder_have_rates_of_their_own(tiny_config):
    config = tiny_config("optimizer.new_layers_rate=10", "lisa.decoder_rate=3")
    model = build_denoiser(config, build_backbone(config.backbone))
    rate_of = {id(p): group["rate"] for group in parameter_groups(model, config) for p in group["params"]}
    for name, parameter in model.named_parameters():
        if name.startswith("backbone."):
            assert id(parameter) not in rate_of
        elif name.startswith("decoder."):
            assert rate_of[id(parameter)] == 3
        else:
            is_new = any(part in name for part in ("pose_encoder.", "zero_conv"))
            assert rate_of[id(parameter)] == (10 if is_new else 1), name


def test_a_plain_config_has_one_group(tiny_config):
    config = tiny_config()
    groups = parameter_groups(build_denoiser(config, build_backbone(config.backbone)), config)
    assert [group["rate"] for group in groups] == [1.0]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_optimizer_works_in_host_memory_too(two_weights, step, stage):
    offloaded = ["training.offload_optimizer=true", *["training.offload_parameters=true"] * (stage == 3)]
    engine = two_weights(f"training.zero_stage={stage}", "optimizer.lr=0.1", "optimizer.weight_decay=0", *offloaded)
    assert torch.allclose(step(engine, (1, -2, 3, -4)), torch.tensor([0.9, 1.1, 0.9, 1.1]), atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", STAGES)
def test_other_weights_are_held_for_a_while(two_weights, step, stage, precision):
    engine = two_weights(f"training.zero_stage={stage}", f"training.precision={precision}", "optimizer.lr=0.0005")
    before = step(engine, (1, 1, 1, 1))
    masters = dict(engine.whole(engine.masters()))
    fives = {name: Fragment(start, torch.full_like(values, 5)) for name, (start, values) in engine.masters().items()}
    with pytest.raises(KeyError), engine.holding(fives):
        loss = engine.model(torch.ones(3, dtype=engine.model.a.dtype), torch.ones(1, dtype=engine.model.a.dtype))
        assert loss == 20  # as a preview calls it, not through the engine
        raise KeyError
    assert all(torch.equal(value, masters[name]) for name, value in engine.whole(engine.masters()))
    after = step(engine, (1, 1, 1, 1))
    torch.testing.assert_close(after, before, rtol=0, atol=0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        ("training.zero_stage=0", "training.offload_optimizer=true"),
        ("training.zero_stage=2", "training.offload_parameters=true"),
        ("training.zero_stage=2", "training.shard_frozen=false"),
    ],
)
def test_what_a_stage_does_not_have_is_refused(tiny_config, wrong):
    with pytest.raises(UserError, match="need"):
        tiny_config(*wrong)
