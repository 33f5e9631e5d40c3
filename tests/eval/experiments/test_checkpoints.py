"""Kept checkpoints of real tiny runs: scored one by one, joined to curves, and a whole tiny benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from eval.experiments.benchmark import load_benchmark, run_benchmark
from eval.experiments.checkpoints import chosen_steps, learning_curves, score_checkpoints
from eval.runs.evaluation import Measures, evaluate
from eval.runs.generate import GenerationJob
from lisa_video.cli import app
from lisa_video.errors import UserError
from lisa_video.models.weights import kept_steps, weights_file_digest, weights_folder

MEASURES = Measures(("keypoint_net",), ("keypoint-net",))


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory, tiny_settings, tiny_manifest) -> Path:
    """A finished benchmark of two arms and one seed, through the real launcher."""
    folder = tmp_path_factory.mktemp("benchmark")
    base = folder / "base.yaml"
    base.write_text(yaml.safe_dump({"run_dir": "unused", **tiny_settings}), encoding="utf-8")
    config = folder / "small.yaml"
    config.write_text(
        yaml.safe_dump({
            "title": "tiny", "base": str(base), "out": str(folder / "out"), "seeds": [1], "checkpoints": 2,
            "arms": {"baseline": ["lisa=null"], "lisa": []}, "overrides": ["training.max_steps=4"],
            "eval_clips": 3, "num_processes": 1, "parallel_runs": 2, "sampling_processes": 2,
            "detectors": ["keypoint_net"],
        }),
        encoding="utf-8",
    )  # fmt: skip
    run_benchmark(load_benchmark(config), manifest=str(tiny_manifest))
    return folder


def test_weights_are_kept_at_even_steps_and_the_last_are_the_newest(benchmark):
    run = benchmark / "out/runs/lisa/seed-1"
    assert kept_steps(run) == [2, 4]
    early, last, newest = (weights_file_digest(weights_folder(run, step)) for step in (2, 4, None))
    assert early != last == newest


def test_the_benchmark_reports_curves_and_is_not_made_twice(benchmark, tiny_manifest):
    summary = json.loads((benchmark / "out/benchmark.json").read_text())
    measures = {part["measure"]: part["arms"] for part in summary["measures"]}
    assert next(iter(measures)) == "PCK@0.1 by KeypointNet 64 px" and "Held-out loss" in measures
    for baseline, lisa in measures.values():
        assert baseline["steps"] == lisa["steps"] == [0, 2, 4]
        assert baseline["values"][0] == lisa["values"][0]  # the frozen network alone
        assert baseline["speed_up"]["ratio"]["value"] == 1
        assert lisa["final_difference"]["value"] == pytest.approx(lisa["values"][-1] - baseline["values"][-1])
    levels = [arms[1]["values"] for measure, arms in measures.items() if "at sigma" in measure]
    assert np.mean(levels, axis=0) == pytest.approx(measures["Held-out loss"][1]["values"])
    assert "steps" in (benchmark / "out/report.html").read_text()
    pck = measures["PCK@0.1 by KeypointNet 64 px"][1]
    row = f"| PCK@0.1 by KeypointNet 64 px: lisa | {100 * pck['values'][-1]:.1f} % ["
    for told in ("report.md", "benchmark.md"):
        assert row in (benchmark / "out" / told).read_text()
    assert "tabular" in (benchmark / "out/report.tex").read_text()
    times = {path: path.stat().st_mtime_ns for path in benchmark.rglob("*") if path.suffix in (".safetensors", ".npz")}
    config = load_benchmark(benchmark / "small.yaml")
    assert run_benchmark(config, manifest=str(tiny_manifest), last_stage="score") is None
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_curves_join_seeds_of_the_same_steps_only(benchmark):
    job = GenerationJob(str(benchmark / "out/runs/lisa/seed-1"), 3)
    floor = evaluate(GenerationJob(job.run_dir, 3, source="uncontrolled"), MEASURES)
    scores = {0: floor} | score_checkpoints(job, chosen_steps(job.run_dir), MEASURES)
    curve = learning_curves({"lisa": {1: scores, 2: scores}}, 0.1)["PCK@0.1 by KeypointNet 64 px"][0]
    assert curve.values.tolist() == pytest.approx([scores[step].poses[0].pck["0.1"].value for step in (0, 2, 4)])
    with pytest.raises(UserError, match="same steps"):
        learning_curves({"lisa": {1: scores, 2: {0: scores[0]}}}, 0.1)


def test_eval_run_prints_a_row_a_checkpoint(benchmark):
    run = str(benchmark / "out/runs/baseline/seed-1")
    result = CliRunner().invoke(
        app, ["eval", "run", run, "--clips", "3", "--checkpoints", "2,4", "--detector", "keypoint_net"]
    )
    assert result.exit_code == 0, result.output
    assert "| 2 |" in result.output and "| 4 |" in result.output and "protocol" in result.output


def test_steps_that_were_not_kept_are_named(benchmark, tiny_run):
    with pytest.raises(UserError, match="step 3; kept: 2, 4"):
        chosen_steps(benchmark / "out/runs/lisa/seed-1", [2, 3])
    with pytest.raises(UserError, match="no kept weights"):
        chosen_steps(tiny_run)


@pytest.mark.parametrize(
    "text, word", [("title: x", "base"), ("a: [", "YAML"), ("title: x\nbase: b\nout: o\narms: {}", "arms")]
)
def test_a_wrong_benchmark_names_its_key(tmp_path, text, word):
    (tmp_path / "b.yaml").write_text(text)
    with pytest.raises(UserError, match=word):
        load_benchmark(tmp_path / "b.yaml")
