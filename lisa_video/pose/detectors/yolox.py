"""YOLOX in an ONNX file, as rtmlib uses it, as a person detector."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torchvision.ops import nms

from lisa_video.config.detector import DetectorSettings
from lisa_video.errors import UserError
from lisa_video.pose.detectors.boxes import PersonDetector
from lisa_video.pose.detectors.onnx_session import OnnxNetwork
from lisa_video.pose.detectors.weights import file_digest, weights_file

_BORDER = 114  # grey value around the picture, as in YOLOX's training
_STRIDES = (8, 16, 32)
_NMS_IOU = 0.45
_PERSON = 0  # first class of COCO, and the only one of the detectors for people


class YOLOXPersons(PersonDetector):
    """Reads both kinds of exported files: those that end in non-maximum suppression, and those that do not.

    Args:
        path: the `.onnx` file.
        device: cpu, cuda or cuda:N.
        min_score: boxes below are dropped.

    Raises:
        UserError: see `OnnxNetwork`.
    """

    def __init__(self, path: Path, *, device: str = "cpu", min_score: float = 0.5) -> None:
        self._network, self._min_score = OnnxNetwork(path, device), min_score
        self._path, self._digest = path, file_digest(path)

    @classmethod
    def from_settings(cls, settings: DetectorSettings) -> YOLOXPersons:
        """Open the file that `settings.person.checkpoint` names.

        Raises:
            UserError: see the class; or there is no such file.
        """
        path = weights_file(settings.person.checkpoint, "detector.person.checkpoint", ".onnx")
        return cls(path, device=settings.device, min_score=settings.person.min_score)

    @property
    def name(self) -> str:
        """See `PersonDetector`."""
        return f"yolox {self._path.stem}"

    @property
    def digest(self) -> str:
        """See `PersonDetector`."""
        return self._digest

    def boxes(self, frames: UInt8[np.ndarray, "F H W 3"]) -> list[np.ndarray]:
        """See `PersonDetector`. One frame at a time, since suppression inside of a file may be of one picture only."""
        scale = min(self._network.height / frames.shape[1], self._network.width / frames.shape[2])
        found = []
        for frame in frames:
            output = self._network(self._letterbox(frame, scale)[None])[0]
            rows = output[0] if output.shape[-1] == 5 else self._suppress(output[0])
            rows = rows[rows[:, 4] >= self._min_score]
            rows = rows[np.argsort(-rows[:, 4], kind="stable")]
            found.append((rows / np.array([scale, scale, scale, scale, 1.0])).astype(np.float32))
        return found

    def _letterbox(self, frame: np.ndarray, scale: float) -> Float[np.ndarray, "3 h w"]:
        """BGR in [0, 255], shrunk or enlarged into the top left corner; YOLOX is not normalised."""
        size = (int(frame.shape[1] * scale), int(frame.shape[0] * scale))
        picture = np.full((self._network.height, self._network.width, 3), _BORDER, np.float32)
        picture[: size[1], : size[0]] = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)[..., ::-1]
        return picture.transpose(2, 0, 1)

    def _suppress(self, raw: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "n 5"]:
        """Undecoded answers: centre and log size in cells, objectness, classes, for each cell of each stride."""
        grids, strides = [], []
        for stride in _STRIDES:
            y, x = np.mgrid[: self._network.height // stride, : self._network.width // stride]
            grids.append(np.stack([x.ravel(), y.ravel()], axis=1))
            strides.append(np.full((x.size, 1), stride))
        grid, stride_of = np.concatenate(grids), np.concatenate(strides)
        if raw.shape[0] != len(grid) or raw.shape[1] < 6:
            raise UserError(
                f"the network's output {raw.shape} is neither boxes nor that of a YOLOX of "
                f"{self._network.width} x {self._network.height} pixels",
                where=self._path,
                remedy="name a YOLOX .onnx file as rtmlib uses them",
            )
        centre, half = (raw[:, :2] + grid) * stride_of, np.exp(raw[:, 2:4]) * stride_of / 2
        score = raw[:, 4] * raw[:, 5 + _PERSON]
        rows = np.concatenate([centre - half, centre + half, score[:, None]], axis=1)[score >= self._min_score]
        kept = nms(torch.from_numpy(rows[:, :4]), torch.from_numpy(rows[:, 4]), _NMS_IOU).numpy()
        found: np.ndarray = rows[kept]
        return found
