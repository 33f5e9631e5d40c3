"""mmpose's top-down models (RTMPose, RTMW, DWPose, heatmap networks) from a config and a checkpoint, in batches.

Networks, preprocessing and decoding are mmpose's own. What is left out is its pipeline of Python objects for each
person: crops of many frames and people are one tensor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lisa_video.config.detector import DetectorSettings
from lisa_video.errors import UserError
from lisa_video.pose.detectors.boxes import PersonDetector
from lisa_video.pose.detectors.devices import require_device
from lisa_video.pose.detectors.mmpose_imports import prepare_mmpose
from lisa_video.pose.detectors.openmmlab import find_config, load_config, load_weights, quiet
from lisa_video.pose.detectors.persons import load_person_detector
from lisa_video.pose.detectors.top_down import CropGeometry, TopDownDetector, skeleton_of
from lisa_video.pose.detectors.weights import file_digest, weights_file


class MMPoseDetector(TopDownDetector):
    """A `TopdownPoseEstimator` of mmpose behind a person detector.

    Args:
        model: as mmpose's `init_model` returns it, with its weights, `cfg` and `dataset_meta`.
        person: finds the people.
        name: what the detector is called in protocols.
        digest: of its weights.
        device: where to compute.
        flip_test: average with the mirrored picture, as mmpose does in its own evaluation; takes twice the time.
        batch_size: crops that go through the network at once.

    Raises:
        UserError: the model finds joints of an unknown layout, or its config describes no top-down crop.
    """

    def __init__(
        self,
        model: Any,
        person: PersonDetector,
        *,
        name: str,
        digest: str,
        device: torch.device,
        flip_test: bool = False,
        batch_size: int = 32,
    ) -> None:
        from mmpose.structures import PoseDataSample

        geometry = _geometry(model.cfg, name)
        # Some models are trained for more joints than they are to answer with.
        names = np.array([joint for _, joint in sorted(model.dataset_meta["keypoint_id2name"].items())])
        self._chosen = np.array(model.test_cfg.get("output_keypoint_indices") or range(len(names)))
        skeleton = skeleton_of(len(self._chosen), names[self._chosen].tolist(), name)
        super().__init__(geometry, skeleton, person, name=name, digest=digest, batch_size=batch_size)
        # Channels side by side, and one pass less over each feature map: about a third of the time on a CPU.
        self._model = _fused(model.eval()).to(device).to(memory_format=torch.channels_last)
        self._device, self._flip_test, self._flip_indices = device, flip_test, model.dataset_meta["flip_indices"]
        self._test_cfg = {**model.test_cfg, "flip_test": flip_test, "output_heatmaps": False}
        size = (geometry.width, geometry.height)
        self._sample = PoseDataSample(metainfo={"flip_indices": self._flip_indices, "input_size": size})
        self._score_scale = _score_scale(model.head)
        self._has_axes = _has_axes(model.head)

    @classmethod
    def from_settings(cls, settings: DetectorSettings) -> MMPoseDetector:
        """Build the network that the config describes, load the checkpoint, and the person detector.

        Raises:
            UserError: mmpose is not installed, a file is missing or does not fit, or the device cannot be used.
        """
        if settings.config is None:
            raise UserError("detector.config is not set", remedy="name a config file, or one that mmpose ships")
        checkpoint = weights_file(settings.checkpoint, "detector.checkpoint", ".pth")
        device = require_device(settings.device)
        prepare_mmpose()
        import mmpose

        config = find_config(settings.config, [Path(mmpose.__file__).parent / ".mim" / "configs"])
        model = _build(config, checkpoint)
        flip = ", flip test" if settings.flip_test else ""
        return cls(
            model,
            load_person_detector(settings),
            name=f"mmpose {config.stem}{flip}",
            digest=file_digest(checkpoint),
            device=device,
            flip_test=settings.flip_test,
            batch_size=settings.batch_size,
        )

    @torch.inference_mode()
    def joints(
        self, crops: UInt8[np.ndarray, "N h w 3"]
    ) -> tuple[Float[np.ndarray, "N K 2"], Float[np.ndarray, "N K"]]:
        """See `TopDownDetector`."""
        bgr = torch.from_numpy(crops).to(self._device).permute(0, 3, 1, 2).flip(1)  # what mmpose's own loader gives
        inputs = self._model.data_preprocessor({"inputs": bgr, "data_samples": []})["inputs"]
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with quiet():
            xy, score = self._peaks(inputs) if self._has_axes else self._decoded(inputs)
        return xy[:, self._chosen], score[:, self._chosen] / self._score_scale

    def _peaks(self, inputs: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """As mmpose's SimCCLabel decodes, for all crops at once and without moving the distributions off a GPU."""
        from mmpose.models.utils.tta import flip_vectors

        head, features = self._model.head, self._model.extract_feat
        axes = head.forward(features(inputs))
        if self._flip_test:
            mirrored = flip_vectors(*head.forward(features(inputs.flip(3))), flip_indices=self._flip_indices)
            axes = [(axis + other) * 0.5 for axis, other in zip(axes, mirrored, strict=True)]
        (x_peak, x), (y_peak, y) = (axis.max(dim=2) for axis in axes)
        xy = torch.stack([x, y], dim=2) / head.decoder.simcc_split_ratio
        return xy.cpu().numpy(), torch.minimum(x_peak, y_peak).cpu().numpy()

    def _decoded(self, inputs: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Of any other head, by mmpose's own decoder."""
        model = self._model
        features = model.extract_feat(inputs)
        if self._flip_test:
            features = [features, model.extract_feat(inputs.flip(3))]
        found = model.head.predict(features, [self._sample] * len(inputs), test_cfg=self._test_cfg)
        xy = np.concatenate([person.keypoints for person in found])
        return xy, np.concatenate([person.keypoint_scores for person in found])


def _build(config_path: Path, checkpoint: Path) -> Any:
    """The model with its weights, on the CPU; nothing is downloaded."""
    from mmengine.registry import DefaultScope
    from mmpose.apis import init_model

    config = load_config(config_path)
    if config.model.get("type") != "TopdownPoseEstimator":
        raise UserError(
            f"the config describes a {config.model.get('type')}, not a top-down pose estimator",
            where=config_path,
            remedy="name a top-down config; for DWPose that of the student, such as "
            "rtmpose-l_8xb32-270e_coco-wholebody-384x288",
        )
    # The scope would stay, and mmdet's models want another one.
    with DefaultScope.overwrite_default_scope("mmpose"), quiet():
        model = init_model(config, None, device="cpu")  # forgets the backbone's `init_cfg`, which is a download
    meta = load_weights(model, checkpoint)
    # Says more than the config, whose data set may be a stand-in; checkpoints from before mmpose 1 have none.
    if "keypoint_id2name" in meta.get("dataset_meta", {}):
        model.dataset_meta = meta["dataset_meta"]
    return model


def _fused(model: Any) -> Any:
    """The same network with each batch norm folded into the convolution before it."""
    from mmcv.cnn import ConvModule
    from mmcv.cnn.utils import fuse_conv_bn

    # In these alone the order of computation is known.
    for module in [module for module in model.modules() if isinstance(module, ConvModule)]:
        if module.order[:2] == ("conv", "norm"):
            fuse_conv_bn(module)
    return model


def _geometry(config: Any, where: str) -> CropGeometry:
    """The crop of the config's test pipeline."""
    steps = {str(step["type"]).rpartition(".")[2]: step for step in config.test_dataloader.dataset.pipeline}
    if "TopdownAffine" not in steps:
        raise UserError(
            "the config's test pipeline has no TopdownAffine", where=where, remedy="name a top-down config of mmpose 1"
        )
    width, height = steps["TopdownAffine"]["input_size"]
    padding = steps.get("GetBBoxCenterScale", {}).get("padding", CropGeometry.padding)
    return CropGeometry(width, height, padding, steps["TopdownAffine"].get("use_udp", False))


def _has_axes(head: Any) -> bool:
    """Whether the head answers with two distributions for each joint, whose peaks are the answer."""
    decoder = type(head.decoder).__name__
    return type(head).__name__ in ("RTMCCHead", "RTMWHead") and decoder == "SimCCLabel" and not head.decoder.use_dark


def _score_scale(head: Any) -> float:
    """How high the peaks of a perfect answer are.

    A SimCC head is trained to softmax(beta * answer) = softmax(label_beta * target), targets peaking at 1: its answers
    peak at label_beta / beta, which is 1 for RTMPose and 10 for RTMW. Heatmaps peak at 1.
    """
    loss: Any = getattr(head, "loss_module", None)
    if getattr(loss, "label_softmax", False):
        return float(loss.label_beta / loss.beta)
    return 1.0
