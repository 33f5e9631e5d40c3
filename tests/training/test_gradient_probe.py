"""The probe of the gradients: they are those of the objective, and training does not notice that it was there."""

import math
from dataclasses import replace

import pytest
import torch

from lisa_video.conditioning import encode_batch
from lisa_video.objective import LISAWeight
from lisa_video.training.gradient_probe import part_of, probe_gradients


def test_every_parameter_has_its_part(plain):
    parts = {part_of(name) for name, p in plain.trainer.model.named_parameters() if p.requires_grad}
    assert parts == {"pose_encoder", "trunk", "zero_convs", "decoder"}
    assert part_of("branch.zero_conv_mid.bias") == "zero_convs" and part_of("branch.conv_in.weight") == "trunk"


@pytest.fixture(scope="module")
def probed(plain):
    """The trainer of `plain`, a batch, and the probe of it."""
    trainer = plain.trainer
    batch = encode_batch(trainer.codec, next(trainer._batches()), trainer.config.conditioning, 0)
    return trainer, batch, probe_gradients(trainer.objective, trainer.model, batch)


def gradients(trainer, batch, loss) -> dict[str, torch.Tensor]:
    named = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss(trainer.objective), list(named.values()), allow_unused=True)
    return {
        name: g if g is not None else torch.zeros_like(p) for (name, p), g in zip(named.items(), found, strict=True)
    }


def test_the_values_are_those_of_the_losses(probed):
    trainer, batch, metrics = probed
    plain = gradients(
        trainer, batch, lambda objective: replace(objective, lisa_weight=LISAWeight(0.0))(trainer.model, batch).total
    )
    total = gradients(trainer, batch, lambda objective: objective(trainer.model, batch).total)
    lisa = {name: total[name] - plain[name] for name in plain}
    for loss, values in (("denoising", plain), ("lisa", lisa)):
        for part in ("pose_encoder", "trunk", "zero_convs"):
            norm = math.sqrt(sum(float(g.square().sum()) for name, g in values.items() if part_of(name) == part))
            assert metrics[f"gradient/{loss}/{part}"] == pytest.approx(norm, rel=1e-4)
    branch = [name for name in plain if part_of(name) != "decoder"]
    a, b = (torch.cat([values[name].flatten() for name in branch]) for values in (plain, lisa))
    assert metrics["gradient/cosine"] == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)), abs=1e-4)
    assert metrics["gradient/denoising/decoder"] == 0 and metrics["gradient/lisa/decoder"] > 0
    assert metrics["gradient/lisa/zero_convs"] == pytest.approx(0, abs=1e-6)  # D reads the feature before them


def test_training_does_not_notice(train, leaves_no_trace):
    run = train("run", "optimizer.eps=1e-3", "diagnostics.gradients_every=1")
    leaves_no_trace(run)
    probes = [row for row in run.rows if "gradient/cosine" in row]
    assert [row["step"] for row in probes] == [1, 2, 3]
