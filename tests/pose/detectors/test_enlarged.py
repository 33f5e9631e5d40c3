"""Enlarged frames: what the detector sees, and where its poses end up."""

import numpy as np
import pytest

from lisa_video.config.detector import SmoothingSettings
from lisa_video.pose.detector import People, PoseDetector
from lisa_video.pose.detectors.enlarged import EnlargedFrames


class BrightSpot(PoseDetector):
    """All joints at the centre of the white pixels, the box around them."""

    name, digest, skeleton = "spot", "sha256:0", "coco17"

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def find(self, frames: np.ndarray) -> list[People]:
        """See `PoseDetector`."""
        self.shapes.append(frames.shape)
        people = []
        for frame in frames:
            rows, columns = np.nonzero(frame[..., 0] > 127)
            box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            xy = np.tile((box[:2] + box[2:]) / 2, (1, 17, 1)).astype(np.float32)
            people.append(People(xy, np.ones((1, 17), np.float32), np.array([[*box, 0.9]], np.float32)))
        return people


@pytest.fixture
def frames() -> np.ndarray:
    """20 frames of 40 x 60 pixels; a square of 8 pixels moves right from (10, 20)."""
    clip = np.zeros((20, 40, 60, 3), np.uint8)
    for number in range(20):
        clip[number, 20:28, 10 + number : 18 + number] = 255
    return clip


def test_poses_come_back_in_pixels_of_the_frames(frames):
    """The detector sees four times the size, in pieces; box and joints are where the square is."""
    inner = BrightSpot()
    found = EnlargedFrames(inner, 160).find(frames)
    assert {shape[1:3] for shape in inner.shapes} == {(160, 240)}
    for number, people in enumerate(found):
        np.testing.assert_allclose(people.xy[0, 0], [14 + number, 24], atol=0.01)
        np.testing.assert_allclose(people.box[0], [10 + number, 20, 18 + number, 28, 0.9], atol=0.3)
    clip = EnlargedFrames(inner, 160).detect(frames)
    np.testing.assert_allclose(clip.xy[:, 0, 0, 0], 14 + np.arange(20), atol=0.01)


def test_large_frames_are_left_alone(frames):
    """A shorter side of 40 pixels is enough for 40."""
    inner = BrightSpot()
    EnlargedFrames(inner, 40).find(frames)
    assert inner.shapes == [frames.shape]


def test_it_is_the_same_detector_by_another_name():
    """Digest, layout, limits and smoothing are the inner detector's; the name says what was done."""
    inner = BrightSpot()
    inner.max_people, inner.smoothing = 3, SmoothingSettings()
    outer = EnlargedFrames(inner, 256)
    assert (outer.digest, outer.skeleton, outer.max_people) == ("sha256:0", "coco17", 3)
    assert outer.smoothing == SmoothingSettings() and outer.name == "spot, frames enlarged to 256 px at least (bicubic)"
