"""mmdet's detectors (RTMDet, YOLOX, Faster R-CNN, ...) as person detectors, from a config and a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from lisa_video.config.detector import DetectorSettings
from lisa_video.errors import UserError
from lisa_video.pose.detectors.boxes import PersonDetector
from lisa_video.pose.detectors.devices import require_device
from lisa_video.pose.detectors.mmpose_imports import prepare_mmpose
from lisa_video.pose.detectors.openmmlab import find_config, load_config, load_weights, quiet
from lisa_video.pose.detectors.weights import file_digest, weights_file


class MMDetPersons(PersonDetector):
    """A detector of mmdet, of whose boxes the people are kept.

    Args:
        model: as mmdet's `init_detector` returns it, with its weights, `cfg` and `dataset_meta`.
        name: what the detector is called in protocols.
        digest: of its weights.
        device: where to compute.
        min_score: boxes below are dropped.
        batch_size: frames that go through the network at once.

    Raises:
        UserError: the model knows no people.
    """

    def __init__(
        self, model: Any, *, name: str, digest: str, device: torch.device, min_score: float = 0.5, batch_size: int = 8
    ) -> None:
        from mmcv.transforms import Compose
        from mmdet.utils import get_test_pipeline_cfg
        from mmengine.registry import DefaultScope

        classes = list(model.dataset_meta["classes"])
        if "person" not in classes:
            raise UserError(
                f"the detector finds {', '.join(classes[:5])}, but no 'person'",
                where=name,
                remedy="name a detector trained for people, such as RTMDet or YOLOX on COCO",
            )
        self._person = classes.index("person")
        # Frames are in memory, not in files.
        steps = [{"type": "mmdet.LoadImageFromNDArray"}, *get_test_pipeline_cfg(model.cfg)[1:]]
        with DefaultScope.overwrite_default_scope("mmdet"):
            self._pipeline = Compose(steps)
        self._model = model.eval().to(device)
        self._name, self._digest, self._min_score, self._batch_size = name, digest, min_score, batch_size

    @classmethod
    def from_settings(cls, settings: DetectorSettings) -> MMDetPersons:
        """Build the network that `settings.person.config` describes and load its checkpoint.

        Raises:
            UserError: mmdet is not installed, a file is missing or does not fit, or the device cannot be used.
        """
        person = settings.person
        if person.config is None:
            raise UserError("detector.person.config is not set", remedy="name a config file, or one that mmdet ships")
        checkpoint = weights_file(person.checkpoint, "detector.person.checkpoint", ".pth")
        device = require_device(settings.device)
        prepare_mmpose()
        import mmdet
        import mmpose

        # mmpose brings configs of detectors of people alone.
        shipped = [Path(mmdet.__file__).parent / ".mim" / "configs"]
        shipped.append(Path(mmpose.__file__).parent / ".mim" / "demo" / "mmdetection_cfg")
        config = find_config(person.config, shipped)
        return cls(
            _build(config, checkpoint),
            name=f"mmdet {config.stem}",
            digest=file_digest(checkpoint),
            device=device,
            min_score=person.min_score,
            batch_size=settings.batch_size,
        )

    @property
    def name(self) -> str:
        """See `PersonDetector`."""
        return self._name

    @property
    def digest(self) -> str:
        """See `PersonDetector`."""
        return self._digest

    @torch.inference_mode()
    def boxes(self, frames: UInt8[np.ndarray, "F H W 3"]) -> list[np.ndarray]:
        """See `PersonDetector`."""
        from mmengine.dataset import pseudo_collate

        found: list[np.ndarray] = []
        for start in range(0, len(frames), self._batch_size):
            pictures = frames[start : start + self._batch_size, ..., ::-1]
            batch = [self._pipeline({"img": np.ascontiguousarray(bgr), "img_id": 0}) for bgr in pictures]
            with quiet():
                samples = self._model.test_step(pseudo_collate(batch))
            found += [self._people_of(sample.pred_instances) for sample in samples]
        return found

    def _people_of(self, instances: Any) -> np.ndarray:
        people = instances[(instances.labels == self._person) & (instances.scores >= self._min_score)]
        people = people[people.scores.argsort(descending=True)]
        rows: np.ndarray = torch.cat([people.bboxes, people.scores[:, None]], dim=1).float().cpu().numpy()
        return rows


def _build(config_path: Path, checkpoint: Path) -> Any:
    """The model with its weights, on the CPU; nothing is downloaded."""
    from mmdet.evaluation import get_classes
    from mmdet.registry import MODELS
    from mmengine.model.utils import revert_sync_batchnorm
    from mmengine.registry import DefaultScope

    config = load_config(config_path)
    # The scope would stay, and mmpose's models want another one.
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = revert_sync_batchnorm(MODELS.build(config.model))  # building alone downloads nothing
    meta = load_weights(model, checkpoint)
    model.cfg = config
    dataset_meta = {key.lower(): value for key, value in meta.get("dataset_meta", meta).items()}
    if "classes" not in dataset_meta:
        dataset_meta = config.test_dataloader.dataset.get("metainfo") or {"classes": get_classes("coco")}
    model.dataset_meta = dataset_meta
    return model
