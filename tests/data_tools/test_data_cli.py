"""`lisa-video data`: what the commands hand on, what they print, and how they end."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from lisa_video import cli

STEPS = ("probe", "shots", "poses", "filter", "manifest", "build")


@pytest.fixture
def command(monkeypatch, capsys):
    """`command("probe", videos, out)` -> (status, stdout, stderr) of `lisa-video data probe ...`, in this process."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lisa-video", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return run


@pytest.fixture
def videos(tmp_path, tiny_manifest) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(sorted((tiny_manifest.parent / "videos").rglob("*.mp4"))[0], folder / "good.mp4")
    return folder


def test_a_good_folder_ends_with_status_0(command, videos, tmp_path):
    status, out, _ = command("probe", videos, tmp_path / "out", "-w", 1)
    assert status == 0 and "worked on: listing 1, probe 1" in out and "quarantine" not in out
    status, out, _ = command("probe", videos, tmp_path / "out")
    assert status == 0 and "nothing to do" in out


def test_quarantine_ends_with_status_3_and_the_last_lines_say_so(command, videos, tmp_path):
    (videos / "good.mp4").write_text("broken")
    (videos / ".DS_Store").touch()
    status, out, err = command("build", videos, tmp_path / "out")
    assert status == 3 and "What became of every second" in out and "No clip was kept" in out
    assert "1 files or folders match sources.ignore" in out
    last = out.splitlines()[-1]
    assert (
        last.startswith("1 files or parts of files could not be used")
        and str(tmp_path / "out/quarantine.jsonl") in last
    )
    assert "'good.mp4' goes into quarantine, step probe: not a readable video" in err


def test_results_for_programs(command, videos, tmp_path):
    (videos / "bad.mp4").write_text("broken")
    status, out, _ = command("probe", videos, tmp_path / "out", "--json")
    result = json.loads(out)
    assert status == 3 and result["tasks"] == {"listing": 2, "probe": 2} and result["quarantined"] == 1
    (videos / "good.mp4").unlink()
    status, out, _ = command("build", videos, tmp_path / "out", "--json")
    assert json.loads(out)["accounts"] == json.loads((tmp_path / "out/summary.json").read_text())
    assert json.loads(out)["gone"] == ["good.mp4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "NONE", "OUT"], "no such folder of videos"),
        (["shots", "OUT"], "no such data build"),
        (["manifest", "OUT"], "no such data build"),
        (["build", "VIDEOS", "OUT", "poses.detektor.kind=mediapipe"], "did you mean poses.detector"),
        (["build", "VIDEOS", "OUT", "clips.max_frames=2"], "clips.min_frames must not be above clips.max_frames"),
        (["build", "VIDEOS", "OUT", "--config", "NONE"], "no such config file"),
        (["build", "VIDEOS", "OUT", "clips.max_frames"], "not an override"),
    ],
)
def test_mistakes_end_with_status_2_and_one_message(command, videos, tmp_path, arguments, message):
    names = {"VIDEOS": videos, "OUT": tmp_path / "out", "NONE": tmp_path / "none"}
    status, _, err = command(*[names.get(argument, argument) for argument in arguments])
    assert status == 2 and message in err and "Remedy" in err and "Traceback" not in err


def test_single_steps_go_on_with_the_settings_of_the_build(command, videos, tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("shots: {width: 64}\nclips: {min_frames: 4}\n")
    assert command("probe", videos, tmp_path / "out", "probe.max_fps=99", "-c", preset, "--engine", "local")[0] == 0
    assert command("shots", tmp_path / "out", "clips.max_frames=4")[0] == 0
    known = yaml.safe_load((tmp_path / "out/settings.yaml").read_text())
    assert (known["probe"]["max_fps"], known["shots"]["width"]) == (99, 64)
    assert known["clips"]["min_frames"] == known["clips"]["max_frames"] == 4
    (record,) = (tmp_path / "out").rglob("clips.json")
    assert len(json.loads(record.read_text())["result"]["clips"]) == 2


def test_options_for_the_engine_are_settings(command, videos, tmp_path):
    command("probe", videos, tmp_path / "out", "engine.kind=ray", "--engine", "local", "--workers", 1)
    engine = yaml.safe_load((tmp_path / "out/settings.yaml").read_text())["engine"]
    assert (engine["kind"], engine["workers"]) == ("local", 1)
