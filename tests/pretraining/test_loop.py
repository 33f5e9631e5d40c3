"""The pretraining loop: a killed stage resumes exactly."""

import pytest
import torch
from torch import nn

from lisa_video.pretraining.loop import LoopSettings, train


def run(tmp_path, name, stop_at=None):
    torch.manual_seed(0)
    model = nn.Linear(4, 1)

    def loss_at(step):
        if step == stop_at:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(8, 4, generator=generator)
        return (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()

    settings = LoopSettings(steps=12, lr=0.1, warmup_steps=2, save_every=4)
    losses = train(name, model, loss_at, settings, tmp_path, seek=lambda step: None)
    return losses, model.weight.detach().clone()


def test_a_killed_stage_resumes_to_the_same_weights(tmp_path):
    whole = run(tmp_path, "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "killed", stop_at=7)
    resumed = run(tmp_path, "killed")
    assert resumed[0] == whole[0]
    assert torch.equal(resumed[1], whole[1])
    assert whole[0][-1] < whole[0][0]
