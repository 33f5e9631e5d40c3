"""Pose accuracy on folders, with a detector whose answers are known: a frame's brightness is the figure's place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eval.pose_accuracy.found_poses import FoundPoses
from eval.pose_accuracy.pose import PoseSettings, score_poses
from eval.report.pose_text import report_lines
from lisa_video.data.video_io import write_video
from lisa_video.errors import UserError
from lisa_video.pose.detector import People, PoseDetector
from lisa_video.pose.keypoints import Keypoints, save_keypoints

SIZE, FRAMES = 64, 5
OFFSETS = np.stack([np.linspace(0, 12, 17), np.tile([0.0, 16.0], 9)[:17]], axis=1)
"""Joints relative to the first; box 12 x 16, diagonal 20 pixels."""


def figure(x: np.ndarray, scale: float = 1.0) -> Keypoints:
    """One person, 17 visible joints, the first at (x, 8)."""
    xy = OFFSETS[None, None] + np.stack([x, np.full(len(x), 8.0)], axis=-1)[:, None, None]
    return Keypoints((scale * xy).astype(np.float32), np.ones(xy.shape[:3], np.float32), np.zeros(1, np.int64))


class LevelDetector(PoseDetector):
    """x = mean level / 5, rounded, so that compression does not matter; black frames are empty."""

    name, digest, skeleton = "level", "sha256:" + "0" * 64, "coco17"
    calls = 0

    def find(self, frames: np.ndarray) -> list[People]:
        """See `PoseDetector`."""
        LevelDetector.calls += 1
        people = []
        for frame in frames:
            x = round(frame.mean() / 5)
            found = figure(np.array([float(x)]), frames.shape[1] / SIZE)
            box = np.array([[0, 0, SIZE, SIZE, 1]], np.float32)[: int(x > 0)]
            people.append(People(found.xy[0, : len(box)], found.score[0, : len(box)], box))
        return people


def write(path: Path, x: np.ndarray, size: int = SIZE, fps: float = 10.0) -> None:
    """A video whose grey level says where the figure is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clip = np.zeros((len(x), size, size, 3), np.uint8) + (5 * x).astype(np.uint8)[:, None, None, None]
    write_video(path, clip, fps, crf=0)


@pytest.fixture
def folders(tmp_path) -> Path:
    """Four clips at x = 10, 14, 18, 22: driving files, real videos 1 px off, generated ones 0, 3, 3 and 9 px off."""
    for number, error in enumerate((0, 3, 3, 9)):
        x = np.full(FRAMES, 10 + 4 * number)
        (tmp_path / "driving").mkdir(exist_ok=True)
        save_keypoints(tmp_path / "driving" / f"{number}.npz", figure(x.astype(float)))
        write(tmp_path / "real" / f"{number}.mp4", x + 1)
        write(tmp_path / "fake" / f"{number}.mp4", x + error)
    return tmp_path


def score(folder: Path, *, driving: bool = True, real: bool = True, cache: Path | None = None, **settings):
    """With both truths if not said otherwise."""
    return score_poses(
        folder / "fake", FoundPoses(LevelDetector(), cache), "coco17", driving=folder / "driving" if driving else None,
        real=folder / "real" if real else None, settings=PoseSettings(**settings), progress=False,
    )  # fmt: skip


def values(scores) -> list[float]:
    """PCK at the thresholds."""
    return [estimate.value for estimate in scores.pck.values()]


def test_both_conventions_ceiling_and_floor(folders):
    """Limits of 1, 2 and 4 px against errors of 0, 3, 3, 9 (driving) and 1, 2, 2, 8 (redetected)."""
    report = score(folders)
    driving, redetected = report.results["driving"], report.results["redetected"]
    assert values(driving.scores) == [0.25, 0.25, 0.75]
    assert values(redetected.scores) == [0.25, 0.75, 0.75]
    assert driving.ceiling is not None and driving.ceiling.error_px.value == pytest.approx(1.0)
    assert redetected.ceiling is None
    # Other clips stand 4, 8 or 12 px away, whichever circle was drawn: within 4 px only neighbours are.
    assert driving.floor.pck["0.1"].value == 0.0 and driving.floor.error_px.value >= 4.0
    assert driving.protocol_id != redetected.protocol_id
    assert driving.protocol["truth"].startswith("driving keypoints from files")
    assert report.skipped == [] and report.notes == []


def test_one_truth_is_enough_and_the_numbers_stay(folders):
    """Without the other source, the same scores by the same protocol; no ceiling without real videos."""
    both, alone = score(folders), score(folders, real=False)
    assert list(alone.results) == ["driving"] and alone.results["driving"].ceiling is None
    assert repr(alone.results["driving"].scores) == repr(both.results["driving"].scores)  # NaN differs from itself
    assert alone.results["driving"].protocol_id == both.results["driving"].protocol_id
    assert list(score(folders, driving=False).results) == ["redetected"]
    with pytest.raises(UserError, match="give --driving, --real or both"):
        score(folders, driving=False, real=False)


def test_driving_keypoints_of_another_size_are_moved(folders):
    """Keypoints of 128 px frames: by their stated size, or by that of the real videos."""
    for number in range(4):
        x = np.full(FRAMES, 10.0 + 4 * number)
        save_keypoints(folders / "driving" / f"{number}.npz", figure(x, 2.0))
    stated = score(folders, real=False, driving_size=(128, 128))
    assert values(stated.results["driving"].scores) == [0.25, 0.25, 0.75]
    for number in range(4):
        write(folders / "real" / f"{number}.mp4", np.full(FRAMES, 11 + 4 * number), size=128)
    report = score(folders)
    assert values(report.results["driving"].scores) == [0.25, 0.25, 0.75]
    assert report.results["driving"].ceiling.error_px.value == pytest.approx(1.0)
    assert "4 pairs differ in size" in report.notes[0]


def test_a_killed_evaluation_continues(folders, tmp_path):
    """With a cache nothing is searched twice; a changed video is searched again, alone."""
    first = score(folders, cache=tmp_path / "cache")
    calls = LevelDetector.calls
    assert score(folders, cache=tmp_path / "cache").to_json() == first.to_json()
    assert LevelDetector.calls == calls
    write(folders / "fake" / "3.mp4", np.full(FRAMES, 22))
    again = score(folders, cache=tmp_path / "cache")
    assert LevelDetector.calls == calls + 1 and values(again.results["driving"].scores) == [0.5, 0.5, 1.0]
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(b"half a file")
    assert score(folders, cache=tmp_path / "cache").to_json() == again.to_json()


def test_clips_that_cannot_be_used_are_said(folders):
    """A damaged keypoint file, one that is short, a missing one; and then too few."""
    (folders / "driving" / "0.npz").write_bytes(b"nothing")
    save_keypoints(folders / "driving" / "1.npz", figure(np.full(3, 14.0)))
    (folders / "driving" / "2.npz").unlink()
    with pytest.raises(UserError, match="no keypoint file"):
        score_poses(folders / "fake", FoundPoses(LevelDetector()), "coco17", driving=folders / "real",
                    settings=PoseSettings(), progress=False)  # fmt: skip
    report = score(folders)
    assert [clip.clip_id for clip in report.results["driving"].scores.clips] == ["1", "3"]
    assert [name for name, _ in report.skipped] == ["0"]
    assert "1 generated videos have no keypoint file" in report.notes[0] and "differ in length" in report.notes[1]
    assert report.results["driving"].scores.total("people") == 3 + FRAMES
    (folders / "fake" / "3.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="1 clips could be compared, at least 2"):
        score(folders)


def test_nobody_found_is_a_score_of_zero_and_said(folders):
    """Black videos; and black real videos leave nothing to compare with."""
    for number in range(4):
        write(folders / "fake" / f"{number}.mp4", np.zeros(FRAMES, np.int64))
    report = score(folders)
    assert values(report.results["driving"].scores) == [0.0, 0.0, 0.0]
    assert report.results["driving"].scores.total("missing") == 4 * FRAMES
    assert report.notes == ["the detector found nobody in any generated clip"]
    for number in range(4):
        write(folders / "real" / f"{number}.mp4", np.zeros(FRAMES, np.int64))
    with pytest.raises(UserError, match="no visible joints"):
        score(folders, driving=False)


def test_speeds_use_the_frames_per_second_of_the_generated_video(folders):
    """2 px a frame at 10 fps over a diagonal of 20 px is 1 a second; every second frame makes no difference."""
    for number in range(4):
        x = 10 + 2 * np.arange(FRAMES)
        save_keypoints(folders / "driving" / f"{number}.npz", figure(x.astype(float)))
        write(folders / "fake" / f"{number}.mp4", x)
    for stride in (1, 2):
        scores = score(folders, real=False, stride=stride).results["driving"].scores
        assert scores.speed_bounds == pytest.approx((1.0, 1.0), rel=1e-5)
        assert values(scores) == [1.0, 1.0, 1.0]
    assert score(folders, real=False, max_frames=2).results["driving"].scores.total("people") == 8


def test_the_report_is_json_and_text(folders):
    """Strict JSON with a protocol for each convention; the text has the numbers and says what stands beside them."""
    report = score(folders)
    read = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert read["results"]["driving"]["scores"]["pck"]["0.2"]["value"] == 0.75
    assert read["results"]["driving"]["protocol"]["detector_digest"] == LevelDetector.digest
    lines = "\n".join(report_lines(report))
    for text in ("PCK@0.2", "75.0 % [25.0, 100.0]", "real video (ceiling)", "other poses (floor)",
                 report.results["redetected"].protocol_id, "detector_digest: sha256:000"):  # fmt: skip
        assert text in lines
