"""The held-out loss: known values, the same at every step and on every seed, and only the weights move it."""

import pytest
import torch

from lisa_video.config.schema import BackboneConfig
from lisa_video.held_out_loss import HeldOutLoss
from lisa_video.models.build import build_backbone, build_denoiser
from lisa_video.training.diagnostics import held_out_metrics


@pytest.fixture
def parts(tiny_checkpoint):
    return build_backbone(BackboneConfig(path=str(tiny_checkpoint)))


def test_a_new_branch_has_the_loss_of_the_frozen_network(tiny_config, parts):
    config = tiny_config()
    measure = HeldOutLoss(config, parts.codec, num_clips=3, num_levels=2)
    levels = measure(build_denoiser(config, parts))
    assert [level.quantile for level in levels] == [0.25, 0.75]
    # Of the log-normal distribution: exp(0.7 -+ 1.6 * 0.67449).
    assert [level.sigma for level in levels] == pytest.approx([0.6844, 5.9244], rel=1e-3)
    assert all(level.controlled == level.frozen and level.ratio == 1.0 and level.pose_gap == 0.0 for level in levels)


def test_the_pose_gap_is_what_the_right_poses_are_worth(tiny_config, parts):
    """A branch that is blind to the pose has none, however much it helps; one that reads it has."""
    config = tiny_config("branch.pose_last_init=default")
    model = build_denoiser(config, parts)
    measure = HeldOutLoss(config, parts.codec, num_clips=2, num_levels=2)
    encoder = model.branch.pose_encoder.conv_out
    with torch.no_grad():
        model.branch.zero_convs[0].weight.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
    seeing = measure(model)
    assert all(level.pose_gap == (level.misled - level.controlled) / level.frozen != 0.0 for level in seeing)
    with torch.no_grad():
        encoder.weight.zero_()
    assert all(level.pose_gap == 0.0 and level.ratio != 1.0 for level in measure(model))


def test_it_is_the_mean_square_error_in_prediction_space(tiny_config, parts):
    """A network that answers 0 has the mean square of the target, (n - s x0) / sqrt(1 + s^2): about 1 at high noise."""
    config = tiny_config()
    model = build_denoiser(config, parts)
    torch.nn.init.zeros_(model.backbone.unet.conv_out.weight)
    torch.nn.init.zeros_(model.backbone.unet.conv_out.bias)
    measure = HeldOutLoss(config, parts.codec, num_clips=2, num_levels=2)
    (first, second) = (clip.batch.latents for clip in measure._clips)
    power = (first.square().mean() + second.square().mean()).item() / 2
    for level in measure(model):
        s = level.sigma
        assert level.frozen == pytest.approx((1 + s**2 * power) / (1 + s**2), rel=0.1)


def test_only_the_weights_move_it(tiny_config, parts):
    values = []
    for override in ("seed=0", "seed=5"):
        config = tiny_config(override, "conditioning.image_dropout=0.3", "conditioning.pose_dropout=1.0")
        model = build_denoiser(config, parts)
        measure = HeldOutLoss(config, parts.codec, num_clips=2, num_levels=2)
        with torch.no_grad():
            for p in model.branch.parameters():
                p.fill_(0.01)
        values.append(measure(model))
        assert measure(model) == values[-1]  # the same when asked again
    assert values[0] == values[1]  # of another seed
    assert values[0][0].controlled != values[0][0].frozen
    with torch.no_grad():
        model.branch.zero_conv_mid.bias.fill_(0.5)
    assert measure(model)[0].controlled != values[1][0].controlled


def test_it_is_logged_at_its_interval_and_leaves_no_trace(train, leaves_no_trace):
    run = train("run", "optimizer.eps=1e-3", "diagnostics.held_out_every=2", "diagnostics.held_out_clips=50")
    rows = [row for row in run.rows if "held_out" in row]
    assert [row["step"] for row in rows] == [2, 3]
    assert rows[0].keys() >= {"held_out_ratio", "held_out/quantile_0.25", "held_out_ratio/quantile_0.75"}
    assert rows[0].keys() >= {"pose_gap", "pose_gap/quantile_0.25"} and rows[0]["pose_gap"] != 0.0
    assert rows[0]["held_out"] != rows[1]["held_out"]
    leaves_no_trace(run)


def test_metrics_are_means_and_ratios_of_sums(tiny_config, parts):
    config = tiny_config()
    levels = HeldOutLoss(config, parts.codec, num_clips=1, num_levels=3)(build_denoiser(config, parts))
    metrics = held_out_metrics(levels)
    assert metrics["held_out"] == pytest.approx(sum(level.controlled for level in levels) / 3)
    assert metrics["pose_gap"] == metrics["pose_gap/quantile_0.17"] == 0.0
    assert metrics["held_out_ratio"] == 1.0 and metrics["held_out_ratio/quantile_0.17"] == 1.0
