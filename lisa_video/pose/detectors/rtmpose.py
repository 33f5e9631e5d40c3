"""RTMPose, RTMW and DWPose exported to ONNX (SimCC outputs): the same crops as for mmpose, without mmpose or mmcv.

Such files are what rtmlib and mmdeploy use. rtmlib itself is no part of this: it takes one person at a time, fetches
files that it does not find, and stays on the CPU without a word if the GPU cannot be used.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from lisa_video.config.detector import DetectorSettings
from lisa_video.errors import UserError
from lisa_video.pose.detectors.boxes import PersonDetector
from lisa_video.pose.detectors.onnx_session import OnnxNetwork
from lisa_video.pose.detectors.persons import load_person_detector
from lisa_video.pose.detectors.top_down import CropGeometry, TopDownDetector, skeleton_of
from lisa_video.pose.detectors.weights import file_digest, weights_file

# ImageNet's, as in mmpose's data_preprocessor; exported networks come without this step.
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_STD = np.array([58.395, 57.12, 57.375], np.float32)
_SUSPICIOUS_SCORE = 3.0

logger = logging.getLogger(__name__)


class RTMPoseDetector(TopDownDetector):
    """A SimCC network in an ONNX file behind a person detector.

    Args:
        path: the `.onnx` file.
        person: finds the people.
        device: cpu, cuda or cuda:N.
        score_scale: height of the peaks of a perfect answer; 1 for RTMPose and DWPose, 10 for RTMW.
        batch_size: crops that go through the network at once, if the file allows it.

    Raises:
        UserError: see `OnnxNetwork`; or the outputs are not those of a SimCC network in a known layout.
    """

    def __init__(
        self,
        path: Path,
        person: PersonDetector,
        *,
        device: str = "cpu",
        score_scale: float = 1.0,
        batch_size: int = 32,
    ) -> None:
        self._network, self._score_scale = OnnxNetwork(path, device), score_scale
        geometry = CropGeometry(self._network.width, self._network.height)
        x, y = _two_axes(self._network, path)
        skeleton = skeleton_of(x.shape[1], None, path)
        self._bins_per_pixel = np.array([x.shape[2] / geometry.width, y.shape[2] / geometry.height])
        name, digest = f"rtmpose {path.stem}", file_digest(path)
        super().__init__(geometry, skeleton, person, name=name, digest=digest, batch_size=batch_size)

    @classmethod
    def from_settings(cls, settings: DetectorSettings) -> RTMPoseDetector:
        """Open the file that the settings name, and load the person detector.

        Raises:
            UserError: see the class; or there is no such file.
        """
        return cls(
            weights_file(settings.checkpoint, "detector.checkpoint", ".onnx"),
            load_person_detector(settings),
            device=settings.device,
            score_scale=settings.score_scale,
            batch_size=settings.batch_size,
        )

    def joints(
        self, crops: UInt8[np.ndarray, "N h w 3"]
    ) -> tuple[Float[np.ndarray, "N K 2"], Float[np.ndarray, "N K"]]:
        """See `TopDownDetector`. A joint lies where its two distributions peak; its score is the lower of the peaks."""
        x, y = self._network(((crops - _MEAN) / _STD).transpose(0, 3, 1, 2))
        xy = np.stack([x.argmax(axis=2), y.argmax(axis=2)], axis=2) / self._bins_per_pixel
        score = np.minimum(x.max(axis=2), y.max(axis=2)) / self._score_scale
        if self._score_scale == 1.0 and score.size and score.max() > _SUSPICIOUS_SCORE:
            logger.warning(
                "%s: a score is %.1f and will be cut to 1; for RTMW set detector.score_scale: 10",
                self.name,
                score.max(),
            )
        return xy, score


def _two_axes(network: OnnxNetwork, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of the network for a black picture, to see their shapes."""
    outputs = network(np.zeros((1, 3, network.height, network.width), np.float32))
    shapes = [output.shape for output in outputs]
    if len(shapes) != 2 or any(len(shape) != 3 for shape in shapes) or shapes[0][:2] != shapes[1][:2]:
        raise UserError(
            f"the network's outputs {shapes} are not two distributions for each joint",
            where=path,
            remedy="name an .onnx file of RTMPose, RTMW or DWPose",
        )
    return outputs[0], outputs[1]
