"""The benchmark compares like with like: both ways to compute LISA give the same loss and gradients."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[1] / "benchmarks/lisa_step.py"


@pytest.fixture(scope="module")
def lisa_step():
    spec = importlib.util.spec_from_file_location("lisa_step", PATH)
    sys.modules["lisa_step"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["lisa_step"]


def test_two_forwards_and_one_and_a_half_are_the_same_step(lisa_step):
    bench = lisa_step.Bench(replace(lisa_step.TINY, clips=1, frames=2, latent_side=8))
    gradients = {}
    for variant in ("lisa", "lisa_two_forwards"):
        bench.objective(bench.models[variant], bench.batch).total.backward()
        gradients[variant] = [p.grad.clone() for p in bench.models["lisa"].trainable.parameters()]
        bench.optimizers[variant].zero_grad(set_to_none=True)
    assert all(torch.equal(a, b) for a, b in zip(*gradients.values(), strict=True))


def test_report_holds_medians_and_ratios(lisa_step):
    seconds = {"controlnet": [1.0, 1.0, 9.0], "lisa": [1.5, 1.5, 1.5], "lisa_two_forwards": [2.0, 2.0, 0.1]}
    memory = {variant: {"peak_mib": 2.0, "steps_mib": 1.0} for variant in lisa_step.VARIANTS}
    result = lisa_step.report(lisa_step.TINY, seconds, memory)
    assert result["time_ratios"]["lisa/controlnet"] == 1.5
    assert result["time_ratios"]["lisa_two_forwards/lisa"] == 1.333
