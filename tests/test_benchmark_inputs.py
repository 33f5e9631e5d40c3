"""`lisa-video eval benchmark` from nothing: data and base are made first, and once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from lisa_video.cli import app
from lisa_video.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def experiment(tmp_path) -> Path:
    """The small benchmark with data and base of its own: four clips, one step."""
    run, file = tmp_path / "run.yaml", tmp_path / "experiment.yaml"
    data = {"manifest": str(tmp_path / "data/manifest.jsonl"), "frame_stride": 1}
    small = {"extends": str(ROOT / "configs/benchmark/small_run.yaml"), "backbone": {"path": str(tmp_path / "base")}}
    run.write_text(yaml.safe_dump({**small, "data": data}))
    settings = {
        "title": "t", "base": str(run), "out": str(tmp_path / "out"), "arms": {"plain": ["lisa=null"]},
        "inputs": {"clips": 4, "frozen_base": {"size": "embedded", "steps": 1, "batch": 1}},
    }  # fmt: skip
    file.write_text(yaml.safe_dump(settings))
    return file


def _run(*arguments: object) -> Result:
    asked = ["eval", "benchmark", *map(str, arguments), "--stage", "inputs"]
    return CliRunner().invoke(app, asked, catch_exceptions=False)


def test_inputs_are_made_and_left_alone_the_second_time(experiment, tmp_path) -> None:
    made = [tmp_path / "data/manifest.jsonl", tmp_path / "base/training.json"]
    times = []
    for _ in range(2):
        result = _run(experiment)
        assert result.exit_code == 0 and "stopped after: inputs" in result.output
        times.append([path.stat().st_mtime_ns for path in made])
    assert times[0] == times[1]
    assert len(made[0].read_text().splitlines()) == 1 + 4
    assert not (tmp_path / "out").exists()


def test_the_users_own_data_are_taken_as_they_are(experiment, tiny_manifest, tmp_path) -> None:
    assert _run(experiment, "inputs.frozen_base.steps=2", "--manifest", tiny_manifest).exit_code == 0
    assert not (tmp_path / "data").exists()
    record = json.loads((tmp_path / "base/training.json").read_text())
    assert record["recipe"]["steps"] == 2 and record["data"]["clips"] == 12


def test_another_data_set_in_the_folder_is_told(experiment) -> None:
    _run(experiment, "inputs.frozen_base=null")
    with pytest.raises(UserError, match="clips is 4, not 5"):
        _run(experiment, "inputs.clips=5")


def test_an_unknown_setting_of_an_experiment_is_told_with_the_nearest(experiment) -> None:
    with pytest.raises(UserError, match="did you mean eval_clips"):
        _run(experiment, "eval_clip=3")
