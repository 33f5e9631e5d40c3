"""MediaPipe's pose model, whose weights lie in its wheel: works at once, without any download, on the CPU.

One person a frame: the whole frame is looked at. Each frame is taken by itself (static mode).
"""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from lisa_video.config.detector import DetectorSettings
from lisa_video.errors import UserError
from lisa_video.pose.detector import People, PoseDetector

# Of MediaPipe's 33 landmarks, those of COCO's 17 joints in COCO's order.
_COCO17 = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
_MODELS = ("modules/pose_detection/pose_detection.tflite", "modules/pose_landmark/pose_landmark_full.tflite")


class MediaPipeDetector(PoseDetector):
    """BlazePose "full" (Bazarevsky et al. 2020), one person; joints of COCO-17, score = its visibility.

    Args:
        min_score: of the person.

    Raises:
        UserError: MediaPipe is not installed.
    """

    def __init__(self, min_score: float = 0.5) -> None:
        if find_spec("mediapipe") is None:
            raise UserError(
                "MediaPipe is not installed",
                remedy="install it with `pip install 'lisa-video[mediapipe]'`; it has wheels up to Python 3.12",
            )
        self._min_score = min_score

    @classmethod
    def from_settings(cls, settings: DetectorSettings) -> MediaPipeDetector:
        """See `DetectorSettings`.

        Raises:
            UserError: not installed, or asked to run on a GPU.
        """
        if settings.device != "cpu":
            raise UserError(
                f"MediaPipe runs on the CPU only, not on {settings.device!r}",
                where="detector.device",
                remedy="set it to cpu, or use mmpose or rtmpose on a GPU",
            )
        return cls(settings.person.min_score)

    @property
    def name(self) -> str:
        """See `PoseDetector`."""
        return f"MediaPipe pose (full), one person, person score from {self._min_score:g}"

    @cached_property
    def digest(self) -> str:
        """See `PoseDetector`."""
        spec = find_spec("mediapipe")
        assert spec is not None and spec.submodule_search_locations is not None
        digest = hashlib.sha256()
        for model in _MODELS:
            digest.update((Path(spec.submodule_search_locations[0]) / model).read_bytes())
        return f"sha256:{digest.hexdigest()}"

    @property
    def skeleton(self) -> str:
        """See `PoseDetector`."""
        return "coco17"

    @cached_property
    def _pose(self) -> Any:
        os.environ.setdefault("GLOG_minloglevel", "2")
        from mediapipe.python.solutions.pose import Pose

        # Complexity 0 and 2 would be downloaded.
        return Pose(static_image_mode=True, model_complexity=1, min_detection_confidence=self._min_score)

    def find(self, frames: UInt8[np.ndarray, "F H W 3"]) -> list[People]:
        """See `PoseDetector`; none or one person a frame."""
        return [self._person(frame) for frame in frames]

    def _person(self, frame: np.ndarray) -> People:
        found = self._pose.process(np.ascontiguousarray(frame)).pose_landmarks
        if found is None:
            return People(np.zeros((0, 17, 2), np.float32), np.zeros((0, 17), np.float32), np.zeros((0, 5), np.float32))
        height, width = frame.shape[:2]
        marks = [found.landmark[number] for number in _COCO17]
        xy = np.array([[mark.x * width, mark.y * height] for mark in marks], np.float32)
        score = np.clip(np.array([mark.visibility for mark in marks], np.float32), 0, 1)
        box = np.array([*xy.min(axis=0), *xy.max(axis=0), score.mean()], np.float32)
        return People(xy[None], score[None], box[None])
