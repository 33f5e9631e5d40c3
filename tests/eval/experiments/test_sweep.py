"""Sampling settings at several values: what is compared with what, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from eval.cli_runs import _split
from eval.experiments.sweep import SweepJob, sweep
from eval.runs.evaluation import Measures, evaluate
from eval.runs.generate import GenerationJob
from lisa_video.cli import app
from lisa_video.errors import UserError

MEASURES = Measures(("keypoint_net",), ("keypoint-net",))
SETTING = "sampling.pose_guidance"


def run_sweep(*arguments: object) -> Result:
    fixed = ("--setting", SETTING, "--clips", 3, "--detector", "keypoint_net")
    return CliRunner().invoke(app, ["eval", "sweep", *map(str, (*arguments, *fixed))], catch_exceptions=False)


@pytest.fixture(scope="module")
def runs(tiny_runs, tmp_path_factory) -> Path:
    """Runs a/lisa, b/lisa and baseline, which may be written to."""
    folder = tmp_path_factory.mktemp("sweep")
    for source, name in (("lisa", "a/lisa"), ("baseline", "b/lisa"), ("baseline", "baseline")):
        shutil.copytree(tiny_runs / source, folder / name)
    return folder


def test_every_run_is_scored_at_every_value_and_seeds_of_an_arm_are_pooled(runs, tmp_path):
    out = tmp_path / "found/sweep.json"
    done = run_sweep(runs / "baseline", runs / "a/lisa", runs / "b/lisa", "--values", "0,1,4", "--out", out)
    assert done.exit_code == 0 and "points over 0" in done.output
    assert out.with_suffix(".png").stat().st_size > 10_000
    with Image.open(tmp_path / "found/sweep-clips.png") as sheet:  # reference, twice pose, three values and truth
        assert sheet.size[0] // 112 == 1 + 2 * 5 and sheet.size[1] // 112 == 3
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["values"] == ["0", "1", "4"] and list(found["arms"]) == ["baseline", "lisa"]
    assert found["protocol"]["sampling"]["num_steps"] == 2 and found["protocol"]["sampling"]["pose_guidance"] == 0
    frozen = evaluate(GenerationJob(str(runs / "baseline"), 3, source="uncontrolled"), MEASURES)
    own = evaluate(GenerationJob(str(runs / "a/lisa"), 3, overrides=(f"{SETTING}=4",)), MEASURES)
    for arm in found["arms"].values():  # a scale of 0 is the frozen network alone
        assert arm[0]["pck"]["value"] == pytest.approx(frozen.poses[0].pck["0.1"].value)
        assert arm[0]["distances"]["Fréchet"] == pytest.approx(frozen.distances[0].frechet.value, rel=0.02)
        assert arm[0]["over_first"]["value"] == 0
        for entry in arm:
            assert entry["over_first"]["value"] == pytest.approx(entry["pck"]["value"] - arm[0]["pck"]["value"])
            assert entry["pck"]["value"] == pytest.approx(np.mean(entry["per_run"]))  # of the same clips
    last, alone = found["arms"]["lisa"][2], found["arms"]["baseline"][2]
    assert last["per_run"] == [own.poses[0].pck["0.1"].value, alone["per_run"][0]]
    assert last["psnr_db"] == pytest.approx((own.pixels.mean_psnr_db + alone["psnr_db"]) / 2)
    assert alone["psnr_db"] != pytest.approx(found["arms"]["baseline"][1]["psnr_db"], abs=1e-3)


def test_the_held_out_loss_is_measured_once_for_all_ways_to_sample(runs):
    sweep({"baseline": [str(runs / "baseline")]}, SweepJob((SETTING,), ("1", "2"), 3), MEASURES)
    assert len(list((runs / "baseline/eval").glob("controlled-*/scores-*.json"))) >= 2
    assert len(list((runs / "baseline/eval").glob("controlled-*/held-out-loss-*.json"))) == 1


def test_a_list_is_one_value():
    assert _split("null,[1,20],2") == ["null", "[1,20]", "2"]


def test_several_settings_get_the_same_value_beside_overrides(runs):
    job = SweepJob(("sampling.guidance_first", "sampling.guidance_last"), ("1", "2"), 3, ("sampling.num_steps=1",))
    sampling = job.at(str(runs / "baseline"), "2").config.sampling
    assert (sampling.guidance_first, sampling.guidance_last, sampling.num_steps) == (2.0, 2.0, 1)


@pytest.mark.parametrize(
    ("settings", "values", "message"),
    [
        (("training.max_steps",), ("1", "2"), r"--setting training.max_steps: not a setting of sampling"),
        ((SETTING,), ("1", "2", "1"), r"--values 1,2,1: a value twice"),
        ((SETTING,), ("1", "[2"), r"--values 1,\[2: not YAML"),
        ((SETTING,), ("1", "[1,20]", "1.0"), r"--values 1,\[1,20\],1.0: a value twice"),
    ],
)
def test_what_needs_training_and_doubles_are_refused(settings, values, message):
    with pytest.raises(UserError, match=message):
        SweepJob(settings, values, 3)


def test_a_value_that_the_setting_does_not_take_is_refused_before_anything_is_sampled(runs):
    job = SweepJob((SETTING,), ("1", "-1"), 2)
    with pytest.raises(UserError, match="pose_guidance"):
        sweep({"baseline": [str(runs / "baseline")]}, job, MEASURES)
