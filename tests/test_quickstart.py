"""The quickstart at the smallest size, from nothing to the report, and once more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lisa_video import quickstart
from lisa_video.errors import UserError
from lisa_video.pose.detectors.keypoint_net import SHIPPED_KEYPOINT_NET
from lisa_video.quickstart import CONFIG, run_quickstart


@pytest.fixture
def config(tmp_path, tiny_settings) -> Path:
    """The quickstart's own settings, but for sizes, and the random base of the tests."""
    settings = yaml.safe_load((Path(__file__).parents[1] / CONFIG).read_text(encoding="utf-8"))
    settings["data"] |= {"num_frames": 4, "size": [32, 32]}
    settings["training"] |= {"max_steps": 1, "micro_batch_size": 2}
    settings["sampling"] |= {"num_steps": 2}
    settings["preview"] |= {"num_clips": 1, "num_steps": 1, "detector": str(SHIPPED_KEYPOINT_NET)}
    settings |= {"backbone": tiny_settings["backbone"], "branch": tiny_settings["branch"]}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def state(out: Path) -> dict[Path, int]:
    """Every file but the report, with the time of its last change."""
    return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.parent != out}


@pytest.mark.launcher
def test_from_nothing_to_the_report_and_again(config, tmp_path, capsys, monkeypatch):
    out = tmp_path / "quick start"
    sizes = {"num_processes": 1, "clips": 20, "steps": 2, "eval_clips": 3, "config": config}
    report = run_quickstart(out, **sizes)
    numbers = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))
    assert [arm["name"] for arm in numbers["arms"]] == ["Baseline", "LISA"]
    assert [arm["steps"] for arm in numbers["arms"]] == [2, 2]
    assert (numbers["floor"]["name"], numbers["ceiling"]["name"]) == ("No control", "Truth through the VAE")
    printed = capsys.readouterr().out
    assert numbers["headline"] in printed and all(f"- {remark}" in printed for remark in numbers["remarks"])
    assert f"report: {report}" in printed and "toy scale" in report.read_text(encoding="utf-8")
    configs = [yaml.safe_load((out / arm / "config.yaml").read_text(encoding="utf-8")) for arm in ("baseline", "lisa")]
    differing = {key for key in configs[0] if configs[0][key] != configs[1][key]}
    assert differing == {"lisa", "run_dir"} and configs[0]["lisa"] is None

    before = state(out)
    monkeypatch.setattr(quickstart, "launch_training", lambda *_, **__: pytest.fail("trained again"))
    assert run_quickstart(out, **sizes) == report
    assert state(out) == before  # neither data nor weights nor samples nor scores
    assert json.loads(report.with_suffix(".json").read_text(encoding="utf-8")) == numbers

    launched = []
    monkeypatch.setattr(quickstart, "launch_training", lambda *arguments, **_: launched.append(arguments) or 3)
    with pytest.raises(UserError, match=r"baseline: training ended with status 3"):
        run_quickstart(out, **sizes | {"steps": 3})  # a longer run does go on
    assert "training.max_steps=3" in launched[0][1]


def test_it_wants_the_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run the quickstart in the checkout"):
        run_quickstart(tmp_path / "out", num_processes=1, clips=20, steps=None, eval_clips=4)
