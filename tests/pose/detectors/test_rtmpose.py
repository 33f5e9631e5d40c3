"""Networks in ONNX files: the same joints as mmpose's, from the same weights; people from a YOLOX file."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from lisa_video.config.detector import DetectorSettings, PersonSettings
from lisa_video.errors import UserError
from lisa_video.pose.accuracy import count_correct, total
from lisa_video.pose.detectors.load import load_detector
from lisa_video.pose.detectors.persons import load_person_detector


@pytest.fixture(scope="module")
def detector(rtmpose_demo):
    return load_detector(rtmpose_demo)


def test_the_joints_are_those_of_mmpose(detector, mmpose_demo, held_out):
    other = load_detector(mmpose_demo)
    other.geometry = detector.geometry  # ONNX files do not say how much room their crops leave: 1.25, as in rtmlib
    for frames, _ in held_out[:3]:
        found, expected = detector.detect(frames), other.detect(frames)
        sure = expected.score > 0.3
        apart = np.linalg.norm(found.xy - expected.xy, axis=-1)[sure]
        assert sure.mean() > 0.8 and apart.max() < 0.5 and (apart < 0.01).mean() > 0.98
        assert np.abs(found.score - expected.score).max() < 0.01


def test_the_joints_are_those_of_rtmlib(detector, rtmpose_demo, held_out, fixed_boxes):
    """Given RGB, which the network was trained on (it does not look), and counting from the first pixel's centre."""
    from rtmlib import RTMPose

    rtmlib = RTMPose(rtmpose_demo.checkpoint, model_input_size=(64, 64), backend="onnxruntime")
    frames = np.concatenate([held_out[0][0], held_out[1][0]], axis=2)[::5]
    boxes = [(0.0, 0.0, 64.0, 64.0), (70.5, -6.2, 131.0, 60.7)]
    ours = load_detector(rtmpose_demo)
    ours.person = fixed_boxes(*boxes)
    for people, frame in zip(ours.find(frames), frames, strict=True):
        xy, score = rtmlib(frame, bboxes=boxes)
        sure = score > 0.3
        assert sure.mean() > 0.6
        assert np.linalg.norm(people.xy - 0.5 - xy, axis=-1)[sure].max() < 0.5


def test_joints_of_held_out_people_are_found(detector, held_out):
    counts = total(count_correct(detector.detect(frames), truth) for frames, truth in held_out)
    assert counts.accuracy(0.2) > 0.75


def test_batches_do_not_change_the_answer(rtmpose_demo, detector, held_out):
    frames = held_out[0][0][:5]
    found = load_detector(rtmpose_demo.model_copy(update={"batch_size": 2})).detect(frames)
    assert np.allclose(found.xy, detector.detect(frames).xy, atol=0.01)


def test_scores_that_are_too_high_are_told(rtmpose_demo, held_out, caplog, monkeypatch):
    detector = load_detector(rtmpose_demo)
    network = detector._network
    high = lambda pictures: [10 * axis for axis in network(pictures)]  # noqa: E731
    monkeypatch.setattr(detector, "_network", high)
    with caplog.at_level(logging.WARNING):
        assert detector.detect(held_out[0][0][:2]).score.max() == 1
    assert "score_scale: 10" in caplog.text
    scaled = load_detector(rtmpose_demo.model_copy(update={"score_scale": 10.0}))
    monkeypatch.setattr(scaled, "_network", high)
    plain = load_detector(rtmpose_demo).detect(held_out[0][0][:2])
    assert np.allclose(scaled.detect(held_out[0][0][:2]).score, plain.score, atol=1e-5)


def test_files_that_are_no_such_network_are_refused(rtmpose_demo, assets, tmp_path):
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"no network")
    for path, message in [
        (junk, "cannot load the network"),
        (tmp_path / "none.onnx", "never downloaded"),
        (assets / "yolox" / "raw.onnx", "not two distributions"),
    ]:
        with pytest.raises(UserError, match=message):
            load_detector(rtmpose_demo.model_copy(update={"checkpoint": str(path)}))


def persons(assets, name: str, min_score: float = 0.5):
    person = PersonSettings(kind="yolox", checkpoint=str(assets / "yolox" / f"{name}.onnx"), min_score=min_score)
    return load_person_detector(DetectorSettings(kind="rtmpose", person=person))


@pytest.mark.parametrize("name", ["suppressed", "raw"])
def test_yolox_boxes_come_back_to_the_frame(assets, name):
    """The files' networks answer the box of what is bright; frames of 128 x 96 are halved for them."""
    frames = np.zeros((2, 96, 128, 3), np.uint8)
    frames[0, 20:80, 40:60] = 255
    frames[1, 10:40, 64:120] = 255
    found = persons(assets, name).boxes(frames)
    for boxes, expected in zip(found, [(40, 20, 60, 80), (64, 10, 120, 40)], strict=True):
        assert boxes.shape == (1, 5) and boxes.dtype == np.float32
        assert np.allclose(boxes[0], [*expected, 0.9], atol=1e-3)


def test_weak_boxes_are_dropped(assets):
    frames = np.zeros((1, 64, 64, 3), np.uint8)
    frames[0, 20:40, 20:40] = 255
    assert [len(persons(assets, "suppressed", score).boxes(frames)[0]) for score in (0.1, 0.5, 0.95)] == [2, 1, 0]


def test_people_of_yolox_have_their_joints_found(assets, rtmpose_demo, held_out):
    """The figure's surroundings are darkened, so that the bright box is about the figure's."""
    frames, _ = held_out[0]
    person = PersonSettings(kind="yolox", checkpoint=str(assets / "yolox" / "suppressed.onnx"))
    detector = load_detector(rtmpose_demo.model_copy(update={"person": person}))
    assert "people by yolox suppressed" in detector.name and detector.digest != load_detector(rtmpose_demo).digest
    wide = np.zeros((4, 64, 200, 3), np.uint8)
    wide[:, :, 100:164] = np.maximum(frames[:4], 160)
    found = detector.find(wide)
    for people in found:
        assert np.allclose(people.box[0], [100, 0, 164, 64, 0.9], atol=4)
        assert np.all(people.xy[..., 0] > 90)
