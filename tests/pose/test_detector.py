"""What `PoseDetector` makes of the people of single frames: clips with identities."""

from __future__ import annotations

import numpy as np
import pytest

from lisa_video.config.detector import SmoothingSettings
from lisa_video.pose.detector import People, PoseDetector
from lisa_video.pose.smoothing import smooth

FRAMES = np.zeros((6, 8, 8, 3), np.uint8)


class Prepared(PoseDetector):
    """Answers prepared people, whatever it sees; joints spread over the box."""

    name, digest, skeleton = "prepared", "sha256:0", "coco17"

    def __init__(self, boxes: list[list[tuple[float, ...]]]) -> None:
        self._boxes, self._next = boxes, 0

    def find(self, frames: np.ndarray) -> list[People]:
        found = []
        for _ in frames:
            box = np.array([(*b, 0.9) for b in self._boxes[self._next]], np.float32).reshape(-1, 5)
            share = np.linspace(0, 1, 17, dtype=np.float32)[None, :, None]
            xy = box[:, None, :2] + share * (box[:, None, 2:4] - box[:, None, :2])
            xy[:, 3] = np.nan
            found.append(People(xy, np.full(xy.shape[:2], 0.8, np.float32), box))
            self._next += 1
        return found


SMALL, LARGE, THIRD = (10, 10, 30, 60), (100, 10, 160, 130), (300, 10, 320, 50)


def test_the_main_person_comes_first_and_gaps_are_unknown():
    clip = [[SMALL, LARGE], [LARGE, SMALL], [SMALL], [LARGE], [SMALL, LARGE], [LARGE, SMALL]]
    found = Prepared(clip).detect(FRAMES, fps=12.0)
    assert found.xy.shape == (6, 2, 17, 2) and found.track_id.tolist() == [0, 1]
    seen = np.array([[1, 1], [1, 1], [0, 1], [1, 0], [1, 1], [1, 1]], bool)
    assert np.array_equal(np.isfinite(found.xy[..., 0, 0]), seen)
    assert np.all(found.xy[seen[:, 0], 0, 0] == LARGE[:2]) and np.all(found.xy[seen[:, 1], 1, 0] == SMALL[:2])
    assert np.array_equal(found.score[..., 0] > 0, seen)


def test_unknown_joints_have_no_score():
    found = Prepared([[LARGE]] * 6).detect(FRAMES, fps=12.0)
    assert np.all(found.score[..., 3] == 0) and np.all(np.delete(found.score, 3, axis=2) == np.float32(0.8))


def test_only_so_many_people_are_kept():
    detector = Prepared([[THIRD, SMALL, LARGE]] * 6)
    detector.max_people = 2
    found = detector.detect(FRAMES, fps=12.0)
    assert found.xy[0, :, 0].tolist() == [list(LARGE[:2]), list(SMALL[:2])]


def test_chunks_give_what_the_whole_clip_gives():
    clip = [[(10 + 3 * i, 10, 40 + 3 * i, 90), (200 - 3 * i, 10, 230 - 3 * i, 90)] for i in range(6)]
    whole = Prepared(clip).detect(FRAMES, fps=12.0)
    parts = Prepared(clip).detect_chunks([FRAMES[:1], FRAMES[1:4], FRAMES[4:]], fps=12.0)
    assert np.array_equal(whole.xy, parts.xy, equal_nan=True) and np.array_equal(whole.score, parts.score)


def test_smoothing_is_applied_to_tracks():
    clip = [[(10 + i % 2, 10, 40, 90)] for i in range(6)]
    plain, smoothed = Prepared(clip), Prepared(clip)
    smoothed.smoothing = SmoothingSettings()
    expected = smooth(plain.detect(FRAMES, fps=12.0), 12.0, SmoothingSettings())
    assert np.array_equal(smoothed.detect(FRAMES, fps=12.0).xy, expected.xy, equal_nan=True)


def test_a_clip_without_frames_is_a_mistake_and_one_without_people_is_not():
    with pytest.raises(ValueError, match="without frames"):
        Prepared([]).detect(FRAMES[:0])
    assert Prepared([[]] * 6).detect(FRAMES).score.shape == (6, 0, 17)
