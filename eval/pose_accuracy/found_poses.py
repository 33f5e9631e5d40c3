"""Poses found in videos, kept in files, so that a killed evaluation continues and real videos are searched once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from lisa_video.data.manifest import file_digest
from lisa_video.errors import UserError
from lisa_video.pose.detector import PoseDetector
from lisa_video.pose.keypoints import Keypoints, load_keypoints, save_keypoints


class FoundPoses:
    """A detector with a memory.

    Args:
        detector: finds the poses.
        folder: where they are kept, by the content of the video; None: nowhere.
    """

    def __init__(self, detector: PoseDetector, folder: str | Path | None = None) -> None:
        self._detector, self._folder = detector, Path(folder) if folder is not None else None
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    @property
    def protocol(self) -> dict[str, Any]:
        """Everything about the detector that changes what is found."""
        return detector_protocol(self._detector)

    def __call__(
        self, path: Path, frames: Iterable[UInt8[np.ndarray, "f H W 3"]], fps: float, taken: dict[str, Any]
    ) -> Keypoints:
        """The poses in some frames of a video.

        Args:
            path: the video file.
            frames: in pieces; read only if the poses are not known.
            fps: frames per second.
            taken: which frames these are and how they were resized, as JSON values.
        """
        if self._folder is None:
            return self._detector.detect_chunks(frames, fps)
        facts = {"video": file_digest(path), "fps": fps, **taken, **self.protocol}
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        file = self._folder / f"{key}.npz"
        try:
            return load_keypoints(file)
        except UserError:  # not there, or damaged
            found = self._detector.detect_chunks(frames, fps)
            save_keypoints(file, found)
            return found


def detector_protocol(detector: PoseDetector) -> dict[str, Any]:
    """Items of a protocol that name a detector."""
    smoothing = detector.smoothing
    return {
        "detector": detector.name,
        "detector_digest": detector.digest,
        "detector_max_people": detector.max_people,
        "detector_smoothing": smoothing.model_dump(mode="json") if smoothing is not None else None,
    }
