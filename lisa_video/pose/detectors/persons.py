"""From settings to a person detector; its libraries are imported when it is asked for."""

from __future__ import annotations

import importlib

from lisa_video.config.detector import DetectorSettings
from lisa_video.pose.detectors.boxes import PersonDetector, WholeFrame

_CLASSES = {"mediapipe": "MediaPipePersons", "mmdet": "MMDetPersons", "yolox": "YOLOXPersons"}


def load_person_detector(settings: DetectorSettings) -> PersonDetector:
    """The detector of `settings.person`, on the device and with the batch size of the pose detector.

    Raises:
        UserError: its libraries are not installed, its files do not fit, or its device cannot be used here.
    """
    kind = settings.person.kind
    if kind == "whole_frame":
        return WholeFrame()
    module = importlib.import_module(f"lisa_video.pose.detectors.{kind}")
    detector: PersonDetector = getattr(module, _CLASSES[kind]).from_settings(settings)
    return detector
