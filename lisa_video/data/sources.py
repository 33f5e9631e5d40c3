"""Where the content of a clip comes from: its video, or a cache of what the codec made of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, final

import numpy as np

from lisa_video.data.geometry import Geometry
from lisa_video.data.manifest import ClipRecord, Manifest
from lisa_video.data.video_io import read_frames
from lisa_video.errors import UserError
from lisa_video.pose.keypoints import Keypoints, load_keypoints


class Content(NamedTuple):
    """What a source knows of the chosen frames of a record.

    Attributes:
        keypoints: F poses, in pixels of the video's frames.
        frames: (F, H, W, 3) uint8, moved by the geometry; from a cache the first of them only, F = 1.
        latents: (F, C, h, w) float16 or float32, what the codec makes of the moved frames; None: not encoded yet.
        embedding: (T, D) likewise, tokens of the first frame.
    """

    keypoints: Keypoints
    frames: np.ndarray
    latents: np.ndarray | None = None
    embedding: np.ndarray | None = None


class ClipSource(ABC):
    """Reads frames of records."""

    @abstractmethod
    def read(self, index: int, record: ClipRecord, chosen: np.ndarray, geometry: Geometry) -> Content:
        """Content of some frames.

        Args:
            index: number of the record in the manifest's split.
            record: the record.
            chosen: (F,) frame numbers within the record, rising in equal steps.
            geometry: from the record's frames to those of the clip.

        Raises:
            UserError: the clip cannot be used.
        """


@final
class VideoSource(ClipSource):
    """Decodes the videos that a manifest names.

    Args:
        manifest: knows where the files lie.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def read(self, index: int, record: ClipRecord, chosen: np.ndarray, geometry: Geometry) -> Content:
        """See `ClipSource`."""
        keypoints = load_keypoints(self.manifest.resolve(record.keypoints))
        check_keypoints(keypoints, record)
        frames = read_frames(self.manifest.resolve(record.video), record.in_video(chosen))
        if frames.shape[1:3] != (record.height, record.width):
            raise UserError(
                f"frames of {frames.shape[2]}x{frames.shape[1]} pixels, the manifest says "
                f"{record.width}x{record.height}, in whose pixels the keypoints are",
                where=record.video,
                remedy="build the manifest again",
            )
        return Content(keypoints.frames(chosen), geometry.apply_frames(frames))


def check_keypoints(keypoints: Keypoints, record: ClipRecord) -> None:
    """Check that keypoints are of all frames of a record.

    Raises:
        UserError: they are of another number of frames.
    """
    if keypoints.num_frames != record.num_frames:
        raise UserError(
            f"{keypoints.num_frames} frames of keypoints for a clip of {record.num_frames} frames",
            where=record.keypoints,
            remedy="extract the poses of this clip again",
        )
