"""Untidy folders, given to the command `eval pose`: what is left out is said, and what is left is scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lisa_video.cli import app
from lisa_video.data.manifest import Manifest
from lisa_video.errors import UserError


@pytest.fixture(scope="module")
def folders(tiny_manifest, tmp_path_factory, make_videos) -> Path:
    """`made` and `real`: three demo clips each, one of them cut off, and videos of other kinds. Read only."""
    root, manifest = tmp_path_factory.mktemp("untidy"), Manifest(tiny_manifest, "val")
    for folder in ("made", "real"):
        for index in range(3):
            target = root / folder / f"clip-{index}.mp4"
            target.parent.mkdir(exist_ok=True)
            shutil.copy(manifest.resolve(manifest[index].video), target)
    make_videos(root / "made", {"small": 3, "alone": 8}, fps=5)  # shorter and slower than its partner
    make_videos(root / "real", {"small": 8}, fps=10, size=(48, 64))
    (root / "made/empty.mp4").touch()
    (root / "real/empty.mp4").touch()
    whole = (root / "made/clip-2.mp4").read_bytes()
    (root / "made/clip-2.mp4").write_bytes(whole[: len(whole) // 3])
    (root / "made/notes.txt").write_text("no video")
    return root


def run(*arguments: str | Path) -> str:
    """What the command prints."""
    result = CliRunner().invoke(app, ["eval", "pose", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_what_cannot_be_used_is_counted_and_the_rest_is_scored(folders, tmp_path):
    cache, numbers = tmp_path / "found", tmp_path / "pose.json"
    options = ["--real", folders / "real", "--detector", "keypoint_net", "--cache", cache, "--json", numbers]
    output = run(folders / "made", *options)
    read = json.loads(numbers.read_text(), parse_constant=lambda name: pytest.fail(name))
    skipped = dict(read["skipped"])
    assert {"empty", "clip-2"} <= set(skipped)
    assert read["results"]["redetected"]["protocol"]["clips"] == 3  # clip-0, clip-1, small
    notes = " ".join(read["notes"])
    assert all(word in notes for word in ("differ in size", "differ in length", "differ in frames per second")), notes
    assert all(note in output for note in read["notes"])
    again, files = run(folders / "made", *options), sorted(cache.iterdir())
    assert again == output and len(files) == len(set(files)) > 0
    files[0].unlink()  # of a kill
    assert run(folders / "made", *options) == output
    assert not list(tmp_path.rglob("*.tmp"))


def test_one_clip_is_no_set(folders, tmp_path):
    (tmp_path / "one").mkdir()
    shutil.copy(folders / "made/clip-0.mp4", tmp_path / "one/clip-0.mp4")
    with pytest.raises(UserError, match=r"1 clips? could be compared, at least 2 are needed"):
        run(tmp_path / "one", "--real", folders / "real", "--detector", "keypoint_net")


def test_nobody_to_be_found_is_told(make_videos, tmp_path):
    """MediaPipe finds nobody in grey frames: there are no true joints, and so no score."""
    pytest.importorskip("mediapipe")
    for folder in ("made", "real"):
        make_videos(tmp_path / folder, {"a": 2, "b": 2})
    with pytest.raises(UserError, match="no visible joints"):
        run(tmp_path / "made", "--real", tmp_path / "real")
