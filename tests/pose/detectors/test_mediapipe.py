"""MediaPipe with the models of its wheel, on rendered people whose joints are known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from data_tools.demo.generate import generate_demo_data
from lisa_video.config.detector import DetectorSettings
from lisa_video.data.manifest import iter_records
from lisa_video.data.video_io import read_frames
from lisa_video.errors import UserError
from lisa_video.pose.accuracy import count_correct, total
from lisa_video.pose.detectors.load import detector_from, load_detector
from lisa_video.pose.keypoints import load_keypoints

pytestmark = pytest.mark.filterwarnings("ignore")  # protobuf's, when MediaPipe is imported


@pytest.fixture(scope="module")
def detector():
    return detector_from("mediapipe")


def test_joints_of_rendered_people_are_found(detector, tmp_path):
    manifest = generate_demo_data(tmp_path, clips=3, size=256, num_frames=8, workers=1, progress=False)
    counts = []
    for record in iter_records(manifest):
        frames = read_frames(manifest.parent / record.video, np.arange(0, 8, 2))
        found = detector.detect(frames)
        assert found.skeleton == "coco17" and found.score.shape[1] == 1
        truth = load_keypoints(manifest.parent / record.keypoints).frames(np.arange(0, 8, 2))
        counts.append(count_correct(found, truth))
    assert total(counts).accuracy(0.2) > 0.75


def test_nobody_is_found_in_an_empty_frame(detector):
    found = detector.detect(np.full((2, 128, 128, 3), 120, np.uint8))
    assert found.score.shape == (2, 0, 17)


def test_it_never_pretends_to_use_a_gpu():
    with pytest.raises(UserError, match=r"detector.device.*CPU only"):
        load_detector(DetectorSettings(kind="mediapipe", device="cuda"))


def test_the_digest_is_of_the_weights(detector):
    assert detector.digest.startswith("sha256:") and len(detector.digest) == 71
