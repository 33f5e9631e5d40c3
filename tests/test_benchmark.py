"""The benchmark compares like with like: all ways to compute LISA give the same loss and gradients."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
MODULES = (
    "joint_decode",
    "step_variants",
    "step_public",
    "step_settings",
    "step_profile",
    "training_step",
    "step_operations",
)


@pytest.fixture(scope="module")
def benchmark():
    """The modules of the benchmark, by name."""
    sys.path.insert(0, str(FOLDER))
    yield {name: importlib.import_module(name) for name in MODULES}
    sys.path.remove(str(FOLDER))
    for name in MODULES:
        del sys.modules[name]


def test_all_ways_to_compute_lisa_are_the_same_step(benchmark):
    variants = benchmark["step_variants"]
    setting = variants.TINY.changed(clips=1, frames=2, height=32, width=32)
    parts, config, batch = variants.build_parts(setting), variants.run_config(setting), variants.make_batch(setting)
    switch = variants.Switch(variants.build_denoiser(config, parts))
    variants.open_zero_convolutions(switch.model)
    objective = variants.Objective(
        parts.backbone.process, variants.build_sigmas(config.noise), variants.LISAWeight(0.2), 0
    )
    encoded = variants.encode_batch(parts.codec, batch, variants.ConditioningConfig(), 0)
    gradients = {}
    for switch.mode in ("lisa", "two_forwards", "joint", "plain"):
        objective(switch, encoded).total.backward()
        gradients[switch.mode] = [p.grad.clone() for p in switch.model.branch.parameters()]
        switch.zero_grad(set_to_none=True)
    assert all(torch.equal(a, b) for a, b in zip(gradients["lisa"], gradients["two_forwards"], strict=True))
    for a, b in zip(gradients["lisa"], gradients["joint"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    assert any(not torch.equal(a, b) for a, b in zip(gradients["lisa"], gradients["plain"], strict=True))


def test_operations_grow_with_what_a_step_does(benchmark):
    module, setting = benchmark["step_operations"], benchmark["step_variants"].TINY.changed(device="meta", frames=2)
    kept = module.operations(setting)
    assert 0 < kept["plain"] < kept["lisa"] < kept["two_forwards"]
    assert 0 < kept["muon"] < kept["plain"]
    # The public manner encodes all frames; ours encodes the reference alone.
    assert kept["plain"] < kept["public"]
    checkpointed = module.MetaStep(setting.changed(checkpointing=True))
    assert module.counted(lambda: checkpointed("plain")) > kept["plain"], "recomputation is counted"


def test_results_hold_medians_and_ratios(benchmark):
    training_step = benchmark["training_step"]
    measure = training_step.Measure(training_step.TINY, {"plain": None, "lisa": None}, {})
    measure.seconds = {"plain": [1.0, 1.0, 9.0], "lisa": [1.5, 1.5, 1.5]}
    results = measure.results()
    assert results["time_ratios"] == {"lisa/plain": 1.5}
    assert results["seconds"]["plain"]["median"] == 1.0


def test_an_error_of_one_part_is_recorded_and_the_rest_goes_on(benchmark, tmp_path):
    training_step = benchmark["training_step"]
    report = training_step.Report(tmp_path / "out.json", training_step.TINY)
    report.attempt("bad", lambda: 1 / 0)
    report.attempt("good", lambda: {"value": 3})
    written = training_step.json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert "ZeroDivisionError" in written["bad"]["error"] and written["good"]["value"] == 3
