"""Detectors as scores take them: by name, with small frames enlarged for those made for photographs."""

from __future__ import annotations

from importlib.util import find_spec

from lisa_video.config.detector import DetectorSettings
from lisa_video.pose.detector import PoseDetector
from lisa_video.pose.detectors.enlarged import EnlargedFrames
from lisa_video.pose.detectors.load import detector_settings, load_detector

ENLARGE_PX = 256
_PLAIN = "keypoint_net"  # resizes every frame to its own size anyway


def default_detectors() -> tuple[str, ...]:
    """The embedded network, and beside it an independent one where it is installed: MediaPipe."""
    return ("keypoint_net", "mediapipe") if find_spec("mediapipe") is not None else ("keypoint_net",)


def scoring_detector(settings: DetectorSettings, enlarge_px: int | None = None) -> PoseDetector:
    """A detector that sees frames of at least so many pixels.

    Args:
        settings: of the detector.
        enlarge_px: shorter side; 0: frames as they are; None: 256, or as they are for a keypoint network.

    Raises:
        UserError: see `load_detector`.
    """
    least = (0 if settings.kind == _PLAIN else ENLARGE_PX) if enlarge_px is None else enlarge_px
    detector = load_detector(settings)
    return EnlargedFrames(detector, least) if least else detector


def named_detector(name: str, device: str = "cpu") -> PoseDetector:
    """The detector that a command names in one word.

    Raises:
        UserError: no such detector, or its libraries or files are missing.
    """
    return scoring_detector(detector_settings(name, device))
