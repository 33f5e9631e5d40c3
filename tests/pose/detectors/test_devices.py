"""A detector that is to use a GPU uses it, or stops; it never computes on the CPU instead."""

from __future__ import annotations

import pytest
import torch

from lisa_video.config.detector import DetectorSettings, PersonSettings
from lisa_video.errors import UserError
from lisa_video.pose.detectors.load import load_detector
from lisa_video.pose.detectors.persons import load_person_detector

DEVICE = "cuda:31"  # on no machine of ours


@pytest.mark.parametrize("kind", ["mmpose", "rtmpose", "keypoint_net", "mediapipe"])
def test_no_pose_detector_falls_back_to_the_cpu(kind, request):
    settings = DetectorSettings(kind=kind)
    if kind in ("mmpose", "rtmpose"):
        settings = request.getfixturevalue(f"{kind}_demo")
    with pytest.raises(UserError, match=r"cuda:31.*Remedy"):
        load_detector(settings.model_copy(update={"device": DEVICE}))


def test_no_person_detector_falls_back_to_the_cpu(assets):
    yolox = PersonSettings(kind="yolox", checkpoint=str(assets / "yolox" / "raw.onnx"))
    mmdet = PersonSettings(
        kind="mmdet",
        config="rtmdet_nano_320-8xb32_coco-person",
        checkpoint=str(assets / "mmpose_demo/rtmpose_demo.pth"),
    )
    for person in (yolox, mmdet):
        with pytest.raises(UserError, match=r"cuda:31.*Remedy"):
            load_person_detector(DetectorSettings(kind="mmpose", device=DEVICE, person=person))


@pytest.mark.parametrize("kind", ["mmpose", "rtmpose", "keypoint_net"])
def test_unknown_devices_are_named(kind, request):
    settings = DetectorSettings(kind=kind) if kind == "keypoint_net" else request.getfixturevalue(f"{kind}_demo")
    with pytest.raises(UserError, match="unknown device 'tpu'"):
        load_detector(settings.model_copy(update={"device": "tpu"}))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_mmpose_on_a_gpu_finds_what_it_finds_on_the_cpu(mmpose_demo, held_out):
    frames = held_out[0][0]
    found = load_detector(mmpose_demo.model_copy(update={"device": "cuda"})).detect(frames)
    expected = load_detector(mmpose_demo).detect(frames)
    sure = expected.score > 0.3
    assert abs(found.xy - expected.xy)[sure].max() <= 0.5
