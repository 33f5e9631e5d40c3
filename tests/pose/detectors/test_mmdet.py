"""mmdet's detectors as person detectors, against mmdet's own inference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lisa_video.config.detector import DetectorSettings, PersonSettings
from lisa_video.errors import UserError
from lisa_video.pose.detectors.mmdet import MMDetPersons
from lisa_video.pose.detectors.mmpose_imports import prepare_mmpose
from lisa_video.pose.detectors.openmmlab import load_config, quiet
from lisa_video.pose.detectors.persons import load_person_detector

CONFIG = "rtmdet_nano_320-8xb32_coco-person"  # shipped, by its bare name; 1 million weights


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> DetectorSettings:
    """A detector of people with random weights, as a checkpoint of mmdet's."""
    prepare_mmpose()
    import mmpose
    from mmdet.registry import MODELS
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import DefaultScope

    torch.manual_seed(0)
    config = load_config(f"{mmpose.__path__[0]}/.mim/demo/mmdetection_cfg/{CONFIG}.py")
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(config.model)
    # Statistics of noise, and last layers that speak up: else the answers would hardly depend on the picture.
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for module in norms:
        module.momentum = 1.0
    # Synchronised norms refuse to train on a CPU once a process group is there, as other tests leave one.
    model = revert_sync_batchnorm(model)
    with torch.no_grad(), quiet():
        model.train()(torch.randn(2, 3, 320, 320))
        for layers, scale, bias in ((model.bbox_head.rtm_cls, 30.0, 0.0), (model.bbox_head.rtm_reg, 1.0, 2.0)):
            for layer in layers:
                layer.weight.normal_(0, scale)
                layer.bias.fill_(bias)
    path = tmp_path_factory.mktemp("mmdet") / "detector.pth"
    torch.save({"state_dict": model.state_dict(), "meta": {"dataset_meta": {"classes": ("person",)}}}, path)
    person = PersonSettings(kind="mmdet", config=CONFIG, checkpoint=str(path), min_score=0.0)
    return DetectorSettings(kind="mmpose", person=person, batch_size=2)


@pytest.fixture(scope="module")
def persons(settings) -> MMDetPersons:
    return load_person_detector(settings)


def test_boxes_are_those_of_mmdet(persons):
    from mmdet.apis import inference_detector
    from mmengine.registry import DefaultScope

    frames = np.random.default_rng(0).integers(0, 256, (3, 90, 160, 3), np.uint8)
    for found, frame in zip(persons.boxes(frames), frames, strict=True):  # batches of 2 and 1
        with quiet(), DefaultScope.overwrite_default_scope("mmdet"):
            expected = inference_detector(persons._model, np.ascontiguousarray(frame[..., ::-1])).pred_instances
        assert len(found) == len(expected) > 20 and found.dtype == np.float32
        assert np.all(np.diff(found[:, 4]) <= 0)
        assert np.allclose(found[:, 4], expected.scores, atol=1e-4)
        apart = np.abs(found[:, None, :4] - expected.bboxes.numpy()).max(axis=-1)  # many scores are nearly equal
        assert apart.min(axis=1).max() < 0.1 and apart.min(axis=0).max() < 0.1


def test_weak_boxes_are_dropped(settings, persons):
    frames = np.random.default_rng(0).integers(0, 256, (1, 90, 160, 3), np.uint8)
    (every,) = persons.boxes(frames)
    limit = float(every[len(every) // 2, 4])
    person = settings.person.model_copy(update={"min_score": limit})
    (found,) = load_person_detector(settings.model_copy(update={"person": person})).boxes(frames)
    assert 0 < len(found) < len(every) and found[:, 4].min() >= limit


def test_a_detector_without_people_is_refused(settings, tmp_path):
    path = tmp_path / "fruit.pth"
    weights = torch.load(settings.person.checkpoint)["state_dict"]
    torch.save({"state_dict": weights, "meta": {"dataset_meta": {"classes": ("apple",)}}}, path)
    person = settings.person.model_copy(update={"checkpoint": str(path)})
    with pytest.raises(UserError, match="apple"):
        load_person_detector(settings.model_copy(update={"person": person}))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"config": None}, "config is not set"),
        ({"checkpoint": None}, "checkpoint is not set"),
        ({"checkpoint": "none.pth"}, "never downloaded"),
        ({"config": "no-such-detector"}, "no such config"),
    ],
)
def test_missing_files_are_named(settings, change, message):
    person = settings.person.model_copy(update=change)
    with pytest.raises(UserError, match=message):
        load_person_detector(settings.model_copy(update={"person": person}))
