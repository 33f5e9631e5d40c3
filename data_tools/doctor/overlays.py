"""Strips: a few frames of a clip in a row with the keypoints drawn over them, as a small JPEG."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from lisa_video.data.manifest import ClipRecord
from lisa_video.data.video_io import VideoReadError, read_frames
from lisa_video.errors import UserError
from lisa_video.pose.keypoints import Keypoints, load_keypoints
from lisa_video.pose.render import draw_pose
from lisa_video.pose.skeleton import skeleton_by_name

_HEIGHT_PX, _WIDTH_PX = 150, 600  # of a frame in the strip; of the strip, about
_FRAMES = (3, 6)  # least and most in a strip
_GAP_PX = 4
_DIMMED = 0.75  # brightness of the frame, so that bright clothes do not hide the skeleton
_JPEG_QUALITY = 78


@dataclass(frozen=True)
class StripTask:
    """A strip to draw.

    Attributes:
        root: folder of the manifest.
        record: the clip.
    """

    root: Path
    record: ClipRecord


def draw_strip(task: StripTask) -> bytes | None:
    """A JPEG file, or None if there is nothing to draw; runs in a worker."""
    cv2.setNumThreads(0)
    record = task.record
    try:
        chosen = strip_frames(record)
        frames = read_frames(task.root / record.video, record.in_video(chosen))
    except VideoReadError:
        return None
    try:
        poses: Keypoints | None = load_keypoints(task.root / record.keypoints)
    except UserError:
        poses = None
    if poses is not None and poses.num_frames == record.num_frames:
        shown = [
            _overlaid(frame, poses.frames(slice(n, n + 1)), record) for frame, n in zip(frames, chosen, strict=True)
        ]
    else:
        shown = [_resized(frame) for frame in frames]
    gap = np.full((_HEIGHT_PX, _GAP_PX, 3), 255, np.uint8)
    row = np.concatenate([part for frame in shown for part in (frame, gap)][:-1], axis=1)
    written, data = cv2.imencode(".jpg", row[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert written
    return data.tobytes()


def strip_frames(record: ClipRecord) -> np.ndarray:
    """Frame numbers within the clip, at even distances from first to last: few wide frames or more narrow ones."""
    count = int(np.clip(round(_WIDTH_PX / (_HEIGHT_PX * record.width / record.height)), *_FRAMES))
    return np.unique(np.linspace(0, record.num_frames - 1, count).round().astype(np.int64))


def data_uri(kind: str, content: bytes) -> str:
    """Bytes as a `data:` URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _overlaid(frame: UInt8[np.ndarray, "H W 3"], poses: Keypoints, record: ClipRecord) -> UInt8[np.ndarray, "h w 3"]:
    """The frame with one frame of poses, drawn in the size of the strip."""
    small = _resized(frame)
    scale = np.array([small.shape[1] / record.width, small.shape[0] / record.height], np.float32)
    drawn = draw_pose(poses.xy[0] * scale, poses.score[0], small.shape[:2], skeleton_by_name(poses.skeleton))
    cover = drawn.max(axis=-1, keepdims=True) / 255.0
    return (small * _DIMMED * (1 - cover) + drawn).clip(0, 255).astype(np.uint8)


def _resized(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    height, width = frame.shape[:2]
    size = (min(4 * _HEIGHT_PX, max(8, round(width * _HEIGHT_PX / height))), _HEIGHT_PX)
    shrinks = height > _HEIGHT_PX
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC).astype(np.uint8)
