"""`python -m lisa_video.train`: exit statuses, messages, and a dry run that touches nothing."""

import json
import os
import resource
import shutil
import subprocess
import sys

import pytest

from lisa_video import train
from lisa_video.config.load import load_config
from lisa_video.train import main

GIB = 2**30


@pytest.fixture
def refused(tiny_config_file, capfd):
    """`refused("optimizer.lr=-1")` -> the one line on stderr of a command that must end with status 2."""

    def run(*overrides: str, config=None) -> str:
        assert main([str(config or tiny_config_file), *overrides]) == 2
        captured = capfd.readouterr()
        assert captured.out == "" and "Traceback" not in captured.err
        (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        assert ". Remedy: " in line and line.endswith(".")
        return line

    return run


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optimizer.learning_rate=1", ["unknown key optimizer.learning_rate", "'optimizer.learning_rate=1'"]),
        ("optimiser.lr=1", ["unknown key optimiser", "did you mean optimizer?"]),
        ("optimizer.lr=-1", ["optimizer.lr: Input should be greater than 0", "correct optimizer.lr"]),
        ("optimizer.lr", ["not an override: 'optimizer.lr'", "section.key=value"]),
        ("data.num_frames=1", ["must be at least 2: the branch is temporal"]),
        ("data.manifest=/nowhere/manifest.jsonl", ["/nowhere/manifest.jsonl: no such manifest", "demo-data"]),
        ("data.frame_stride=3", ["none of the 9 clips", "10 frames that 4 frames at stride 3 need", "lower the"]),
        ("data.size=[32,34]", ["data.size: frame side of 34 px, but the VAE goes down by 4", "use multiples of 32"]),
        ("backbone.path=/nowhere", ["/nowhere: no such folder", "name a local SVD folder"]),
        ("backbone.options.variant=fp16", ["cannot load the SVD checkpoint", "set backbone.options.variant"]),
        ("backbone.options.chunks=2", ["backbone.options: chunks", "frames_per_chunk"]),
        ("backbone.name=vds", ["backbone.name: no backbone 'vds'", "use svd"]),
        ("branch.pose_channels=[4,8]", ["branch.pose_channels: 2 pose encoder widths", "give log2(4) + 1 widths"]),
        ("lisa.layer=down_12", ["lisa.layer: the branch has no feature 'down_12'", "down_11, mid"]),
    ],
)
def test_mistakes_say_what_where_and_remedy(refused, override, parts):
    line = refused(override)
    for part in parts:
        assert part in line


def test_no_such_config(refused, tmp_path):
    assert f"{tmp_path / 'none.yaml'}: no such config file" in refused(config=tmp_path / "none.yaml")


def test_a_manifest_of_another_version(refused, tmp_path):
    path = tmp_path / "manifest.jsonl"
    path.write_text(json.dumps({"schema": "lisa_video.manifest", "version": 99}) + "\n", encoding="utf-8")
    line = refused(f"data.manifest={path}")
    assert f"{path}: manifest of version 99, this release reads version 1" in line


def test_a_folder_of_other_weights(refused, tmp_path):
    (tmp_path / "unet").mkdir()
    line = refused(f"backbone.path={tmp_path}")
    assert f"{tmp_path}: not an SVD checkpoint: no sub-folder vae, image_encoder, feature_extractor" in line


def test_no_detector(refused, tmp_path):
    overrides = ("preview.every=1", f"preview.detector={tmp_path / 'none'}")
    assert "none: no such detector. Remedy: name mediapipe, keypoint_net," in refused(*overrides)


def test_a_full_disk(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100 * GIB, 99 * GIB, GIB // 4))
    line = refused()
    assert f"{tmp_path / 'run'}: 256 MiB free on the disk, 512 MiB needed for checkpoints" in line
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_way_of_the_run_dir(refused, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    for run_dir in (tmp_path / "file", tmp_path / "file/run"):
        assert f"{tmp_path / 'file'}: not a folder. Remedy: choose another run_dir" in refused(f"run_dir={run_dir}")


def test_a_run_dir_without_permission(refused, tmp_path, monkeypatch):
    # Tests may run as root, whom no permission stops; so the answer of the system is replaced.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert f"{tmp_path}: cannot write here" in refused()


def test_changed_settings_of_a_run(refused, tiny_config_file, tmp_path):
    assert main([str(tiny_config_file), "training.max_steps=1"]) == 0
    line = refused("training.max_steps=2", "optimizer.lr=0.5")
    assert f"{tmp_path / 'run/config.yaml'}: the run was started with other settings: " in line
    assert "optimizer.lr: 0.001 -> 0.5" in line
    assert refused("training.max_steps=2", "optimizer.lr=0.5", "--dry-run") == line  # before anything is loaded
    assert main(["--local_rank=0", str(tiny_config_file), "training.max_steps=2"]) == 0  # longer is allowed
    assert json.loads((tmp_path / "run/done.json").read_text(encoding="utf-8"))["step"] == 2


def test_a_corrected_mistake_may_use_the_same_run_dir(refused, tiny_config_file):
    refused("lisa.layer=down_12")
    assert main([str(tiny_config_file), "training.max_steps=1"]) == 0


def test_other_ranks_leave_the_word_to_the_first(refused, monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(train.time, "sleep", waited.append)
    monkeypatch.setenv("RANK", "1")
    refused("optimizer.lr=-1")
    assert waited == [train._HEAD_START] and train._HEAD_START > 2  # the launcher looks every second


def test_a_dry_run_prints_a_config_and_touches_nothing(tiny_config, tiny_config_file, tmp_path, capfd):
    before = sorted(tmp_path.rglob("*"))
    assert main([str(tiny_config_file), "optimizer.lr=0.25", "--dry-run"]) == 0
    printed = capfd.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "printed.yaml").write_text(printed, encoding="utf-8")
    assert load_config(tmp_path / "printed.yaml") == tiny_config("optimizer.lr=0.25")
    assert "# clips: 9 to train on, 3 held out" in printed
    assert "frozen" in printed and "LISA decoder" in printed


def test_a_dry_run_finds_what_only_the_network_knows(tiny_config_file, capfd):
    assert main([str(tiny_config_file), "data.size=[32,34]", "--dry-run"]) == 2
    assert "frame side of 34 px" in capfd.readouterr().err


def test_help_is_quick():
    command = [sys.executable, "-X", "importtime", "-m", "lisa_video.train", "--help"]
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - spent < 3
    assert "section.key=value" in done.stdout and "--local_rank" not in done.stdout
    assert "import time" in done.stderr and "torch" not in done.stderr and "pydantic" not in done.stderr
