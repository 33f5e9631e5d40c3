"""The command `eval pose` on demo clips with the embedded detector, and with MediaPipe."""

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
def demo(tiny_manifest, tmp_path_factory) -> Path:
    """`videos` and `keypoints` of three demo clips, and `swapped`: the same videos by other names. Read only."""
    root, manifest = tmp_path_factory.mktemp("demo"), Manifest(tiny_manifest, "val")
    for folder in ("videos", "keypoints", "swapped"):
        (root / folder).mkdir()
    names = [manifest[index].clip_id for index in range(3)]
    for index, name in enumerate(names):
        record = manifest[index]
        shutil.copy(manifest.resolve(record.video), root / "videos" / f"{name}.mp4")
        shutil.copy(manifest.resolve(record.keypoints), root / "keypoints" / f"{name}.npz")
        shutil.copy(manifest.resolve(record.video), root / "swapped" / f"{names[index - 1]}.mp4")
    return root


def run(*arguments: str | Path) -> str:
    """What the command prints."""
    result = CliRunner().invoke(app, ["eval", "pose", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_true_videos_reach_the_ceiling_and_exchanged_ones_the_floor(demo, tmp_path):
    """The same videos as generated and real score alike; other clips score far below."""
    output = run(
        demo / "videos", "--driving", demo / "keypoints", "--real", demo / "videos", "--detector", "keypoint_net",
        "--json", tmp_path / "pose.json", "--normalise", "torso", "--thresholds", "0.2,0.5",
    )  # fmt: skip
    read = json.loads((tmp_path / "pose.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    driving, redetected = read["results"]["driving"], read["results"]["redetected"]
    assert driving["scores"] == driving["ceiling"] and redetected["scores"]["pck"]["0.2"]["value"] == 1.0
    assert driving["protocol"]["normaliser"].startswith("true shoulder to opposite hip")
    assert driving["protocol"]["detector"].startswith("KeypointNet 64 px")  # not enlarged
    assert driving["protocol_id"] in output and "PCK@0.5" in output and "note: both folders are the same" in output
    run(demo / "swapped", "--driving", demo / "keypoints", "--detector", "keypoint_net", "--normalise", "torso",
        "--thresholds", "0.2,0.5", "--json", tmp_path / "swapped.json")  # fmt: skip
    swapped = json.loads((tmp_path / "swapped.json").read_text())["results"]["driving"]
    assert swapped["scores"]["pck"]["0.5"]["value"] < driving["scores"]["pck"]["0.5"]["value"] - 0.2
    assert swapped["scores"]["pck"]["0.2"]["value"] < 0.4


def test_driving_videos_are_searched_like_real_ones(demo):
    """A folder of videos in the place of keypoint files is the second convention."""
    output = run(demo / "videos", "--driving", demo / "videos", "--detector", "keypoint_net")
    assert "against keypoints found by the same detector in the real video" in output
    with pytest.raises(UserError, match="no keypoint files"):
        run(demo / "videos", "--driving", demo / "videos", "--real", demo / "videos")


def test_mediapipe_is_an_independent_detector(demo, tmp_path):
    """Small frames are enlarged for it, and the protocol says so."""
    pytest.importorskip("mediapipe")
    run(demo / "videos", "--driving", demo / "keypoints", "--json", tmp_path / "pose.json", "--frames", "2")
    driving = json.loads((tmp_path / "pose.json").read_text())["results"]["driving"]
    assert "frames enlarged to 256 px" in driving["protocol"]["detector"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--normalise", "arm"], "no normaliser 'arm'"),
        (["--thresholds", "0.1,x"], "no list of thresholds"),
        (["--thresholds", "0"], "no list of thresholds"),
        (["--driving-size", "64"], "is no size"),
        (["--detector", "openpose"], "no such detector"),
        (["--driving", "none"], "no such folder"),
        ([], "nothing to compare with"),
    ],
)
def test_mistakes_are_explained(demo, options, message):
    """Before anything is decoded."""
    truth = ["--real", str(demo / "videos")] if options and "--driving" not in options else []
    with pytest.raises(UserError, match=message):
        run(demo / "videos", *truth, *options)
