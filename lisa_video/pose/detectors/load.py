"""From settings to a detector; a detector's libraries are imported when it is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path

from lisa_video.config.detector import DetectorSettings
from lisa_video.config.load import load_settings
from lisa_video.errors import UserError
from lisa_video.pose.detector import PoseDetector

_CLASSES = {
    "mediapipe": "MediaPipeDetector",
    "mmpose": "MMPoseDetector",
    "rtmpose": "RTMPoseDetector",
    "keypoint_net": "KeypointNetDetector",
}


def load_detector(settings: DetectorSettings) -> PoseDetector:
    """The detector of `settings`.

    Raises:
        UserError: its libraries are not installed, its files do not fit, or its device cannot be used here.
    """
    module = importlib.import_module(f"lisa_video.pose.detectors.{settings.kind}")
    detector: PoseDetector = getattr(module, _CLASSES[settings.kind]).from_settings(settings)
    detector.max_people, detector.smoothing = settings.max_people, settings.smoothing
    return detector


def detector_from(text: str, device: str = "cpu") -> PoseDetector:
    """The detector that a command line or a run's settings name in one word; see `detector_settings`.

    Raises:
        UserError: see `detector_settings` and `load_detector`.
    """
    return load_detector(detector_settings(text, device))


def detector_settings(text: str, device: str = "cpu", key: str = "detector") -> DetectorSettings:
    """Settings of a detector that is named in one word; cheap, nothing is loaded.

    Args:
        text: `mediapipe`, `keypoint_net` (the embedded one), the folder of a keypoint network, or a YAML file with
            `DetectorSettings`.
        device: where a keypoint network computes. A YAML file says itself where; MediaPipe computes on the CPU.
        key: where the user wrote it, for the error.

    Raises:
        UserError: no such detector or file, or broken settings.
    """
    if text == "mediapipe":
        return DetectorSettings(kind="mediapipe")
    if text == "keypoint_net" or Path(text).is_dir():
        checkpoint = None if text == "keypoint_net" else text
        return DetectorSettings(kind="keypoint_net", checkpoint=checkpoint, device=device)
    if Path(text).suffix in (".yaml", ".yml"):
        return load_settings(DetectorSettings, text)
    raise UserError(
        "no such detector",
        where=f"{key}: {text}",
        remedy="name mediapipe, keypoint_net, the folder of a keypoint network, or a YAML file of detector settings",
    )
