"""Networks in ONNX files, run by ONNX Runtime on the device that was asked for, or not at all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from lisa_video.errors import UserError


class OnnxNetwork:
    """A network with one input of pictures (N, 3, H, W).

    Args:
        path: the `.onnx` file.
        device: cpu, cuda or cuda:N.

    Raises:
        UserError: ONNX Runtime is not installed, cannot use the device, or cannot read the file; or the network wants
            something else than pictures of one size.
    """

    def __init__(self, path: Path, device: str) -> None:
        self._session = _open(path, device)
        (picture, *others) = self._session.get_inputs()
        shape = picture.shape
        if others or len(shape) != 4 or shape[1] != 3 or not all(isinstance(side, int) for side in shape[2:]):
            raise UserError(
                f"the network's inputs are {[tuple(i.shape) for i in (picture, *others)]}, not pictures of one size",
                where=path,
                remedy="name a model exported for a fixed height and width, as those of RTMPose and YOLOX are",
            )
        self._input = picture.name
        self.height, self.width = int(shape[2]), int(shape[3])
        self._fixed_batch = shape[0] if isinstance(shape[0], int) else None

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        """(N, 3, H, W) float32 -> all outputs; where the file fixes the batch, pictures go one such batch at a time."""
        if self._fixed_batch is None:
            return self._run(pictures)
        size, count = self._fixed_batch, len(pictures)
        padded = np.concatenate([pictures, np.repeat(pictures[-1:], -count % size, axis=0)])
        parts = [self._run(padded[start : start + size]) for start in range(0, len(padded), size)]
        return [np.concatenate(outputs)[:count] for outputs in zip(*parts, strict=True)]

    def _run(self, pictures: np.ndarray) -> list[np.ndarray]:
        outputs: list[np.ndarray] = self._session.run(None, {self._input: np.ascontiguousarray(pictures)})
        return outputs


def _open(path: Path, device: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"ONNX Runtime cannot be used: {error}", remedy="run `pip install -e '.[rtmpose]'` in the repository"
        ) from error
    kind, number = _parse(device)
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[kind]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; what it warns of is checked below
    refused = UserError(
        f"device {device!r} was asked for, ONNX Runtime cannot use it",
        where=path,
        remedy="install onnxruntime-gpu in the place of onnxruntime, for the CUDA version of this machine, "
        "or set device: cpu",
    )
    if provider not in onnxruntime.get_available_providers():
        raise refused
    try:
        chosen = provider if kind == "cpu" else (provider, {"device_id": number})
        session = onnxruntime.InferenceSession(str(path), options, providers=[chosen])
    except Exception as error:  # its exceptions have no common base
        raise UserError(
            f"ONNX Runtime cannot load the network ({str(error).splitlines()[0]})",
            where=path,
            remedy="name an .onnx file of RTMPose, RTMW, DWPose or YOLOX",
        ) from error
    # A provider whose libraries are missing is left out with no more than a line of log.
    if session.get_providers()[0] != provider:
        raise refused
    return session


def _parse(device: str) -> tuple[str, int]:
    match = re.fullmatch(r"(cpu)|(cuda)(?::(\d+))?", device)
    if match is None:
        raise UserError(f"unknown device {device!r}", remedy="set device to cpu, cuda or cuda:N")
    return match[1] or match[2], int(match[3] or 0)
