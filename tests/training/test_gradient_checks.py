"""One kernel for all gradients: the same norm and the same verdict as DeepSpeed's own loops."""

import pytest
import torch

from lisa_video.training.gradient_checks import check_gradients_at_once, joint_norm, not_finite


def test_norm_by_hand():
    assert joint_norm([torch.tensor([3.0]), torch.tensor([[0.0, -4.0]]).bfloat16()]).item() == 5.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_element_is_found(value):
    tensors = [torch.ones(3), torch.ones(2, 2).bfloat16()]
    assert not not_finite(tensors)
    tensors[1][1, 0] = value
    assert not_finite(tensors)


@pytest.mark.parametrize("stage", [1, 2])
def test_deepspeed_clips_and_reports_as_before(two_weights, step, stage):
    settings = (f"training.zero_stage={stage}", "optimizer.lr=1000", "optimizer.eps=1000", "optimizer.clip_norm=1.0")
    theirs, ours = two_weights(*settings), two_weights(*settings)
    check_gradients_at_once(ours._deepspeed.optimizer)
    gradient = (2.0, -4.0, 4.0, 8.0)
    torch.testing.assert_close(step(ours, gradient), step(theirs, gradient))
    assert ours.gradient_norm == pytest.approx(theirs.gradient_norm) == pytest.approx(10.0)


def test_a_step_that_is_not_finite_is_still_skipped(two_weights, step):
    engine = two_weights("training.zero_stage=2", "training.precision=bf16")
    check_gradients_at_once(engine._deepspeed.optimizer)
    assert torch.equal(step(engine, (1.0, float("nan"), 1.0, 1.0)), torch.ones(4))
    assert not torch.equal(step(engine, (1.0, 1.0, 1.0, 1.0)), torch.ones(4)) or engine.gradient_norm == 2.0
