"""What is found before anything expensive starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lisa_video.checks import check_disk, check_run, describe_run
from lisa_video.config.load import load_config
from lisa_video.errors import UserError


def test_sound_run_passes(tiny_config):
    check_run(tiny_config())


def test_description_is_a_config_with_sizes(tiny_config, tmp_path):
    text = describe_run(tiny_config())
    path = tmp_path / "described.yaml"
    path.write_text(text)
    assert load_config(path) == tiny_config()
    assert "# clips: 9 to train on, 3 held out" in text
    assert "# clips a step: 2 x number of processes" in text
    assert "LISA decoder (2." in text
    assert "0 LISA decoder (0.00% of the branch)" in describe_run(tiny_config("lisa=null"))


def test_checks_write_nothing(tiny_config):
    config = tiny_config()
    describe_run(config)
    assert not Path(config.run_dir).exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.manifest=/nowhere/manifest.jsonl", "/nowhere/manifest.jsonl"),
        ("data.num_frames=9", r"none of the 9 clips of split 'train' has the 9 frames"),
        ("data.frame_stride=3", "none of the 9 clips"),
        ("backbone.path=/nowhere/svd", "no such folder"),
        ("backbone.name=wan", "no backbone 'wan'"),
    ],
)
def test_mistakes_are_found_before_weights_are_loaded(tiny_config, override, message):
    with pytest.raises(UserError, match=message):
        check_run(tiny_config(override))


def test_missing_detector_is_found_if_previews_need_it(tiny_config):
    with pytest.raises(UserError, match=r"preview\.detector"):
        check_run(tiny_config("preview.every=1", "preview.detector=/nowhere"))
    check_run(tiny_config("preview.every=0", "preview.detector=/nowhere"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.size=[32,30]", "data.size"),
        ("lisa.layer=down_99", "lisa.layer"),
        ("branch.pose_channels=[8]", "branch.pose_channels"),
        ("backbone.options={variant: fp8}", "variant"),
    ],
)
def test_dry_run_finds_what_only_the_weights_tell(tiny_config, override, message):
    with pytest.raises(UserError, match=message):
        describe_run(tiny_config(override))


def test_full_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("lisa_video.checks.shutil.disk_usage", lambda path: SimpleNamespace(free=100 * 2**20))
    with pytest.raises(UserError, match="100 MiB free on the disk, 512 MiB needed"):
        check_disk(tmp_path / "a" / "b")


def test_run_dir_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError):
        check_disk(tmp_path / "file" / "run")
