"""A mini data set: each frame's background brightness tells its number, a red square sits at the left wrist."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lisa_video.data.manifest import ClipRecord, Manifest, write_manifest
from lisa_video.data.video_io import write_video
from lisa_video.pose.keypoints import Keypoints, save_keypoints
from lisa_video.pose.skeleton import COCO17

BRIGHTNESS_STEP = 6
WRIST = COCO17.joints.index("left_wrist")


def wrist_path(num_frames: int, height: int, width: int) -> np.ndarray:
    """(F, 2) centres of the square, whole pixels, well inside the picture and left of its middle."""
    time = np.arange(num_frames)
    return np.stack([10 + time * (width / 2 - 16) // num_frames, 10 + time * (height - 20) // num_frames], axis=1)


def make_frames(num_frames: int, height: int, width: int) -> np.ndarray:
    """(F, H, W, 3) uint8: grey of brightness 6 x frame number, red square of 8 pixels around `wrist_path`."""
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for number, (x, y) in enumerate(wrist_path(num_frames, height, width).astype(int)):
        frames[number] = BRIGHTNESS_STEP * number
        frames[number, y - 4 : y + 4, x - 4 : x + 4] = (255, 0, 0)
    return frames


def make_keypoints(wrist: np.ndarray) -> Keypoints:
    """One person of whom only the left wrist is known."""
    xy = np.full((len(wrist), 1, COCO17.num_joints, 2), np.nan, np.float32)
    score = np.zeros((len(wrist), 1, COCO17.num_joints), np.float32)
    xy[:, 0, WRIST], score[:, 0, WRIST] = wrist, 1
    return Keypoints(xy, score, np.zeros(1, np.int64))


@dataclass(frozen=True)
class MiniClips:
    """Writes videos, keypoints and records into a folder."""

    folder: Path

    def record(
        self,
        name: str,
        *,
        length: int = 20,
        start: int = 0,
        frames: int | None = None,
        stride: int = 1,
        size=(48, 64),
        split="train",
    ) -> ClipRecord:
        """Write a video of `length` frames and the keypoints of `frames` of them: start, start + stride, ..."""
        frames = len(range(start, length, stride)) if frames is None else frames
        height, width = size
        video, keypoints = self.folder / f"{name}.mp4", self.folder / f"{name}.npz"
        write_video(video, make_frames(length, height, width), 24.0)
        save_keypoints(keypoints, make_keypoints(wrist_path(length, height, width)[start::stride][:frames]))
        return ClipRecord(
            clip_id=name,
            video=video.name,
            start_frame=start,
            num_frames=frames,
            frame_stride=stride,
            fps=24.0,
            width=width,
            height=height,
            keypoints=keypoints.name,
            split=split,
            source=name,
            source_digest="sha256:" + hashlib.sha256(video.read_bytes()).hexdigest(),
        )

    def manifest(self, records: list[ClipRecord], split="train") -> Manifest:
        """Write the manifest and open a split of it."""
        write_manifest(self.folder / "manifest.jsonl", records)
        return Manifest(self.folder / "manifest.jsonl", split)


@pytest.fixture
def mini_clips(tmp_path) -> MiniClips:
    """An empty folder and the means to fill it."""
    return MiniClips(tmp_path)


@pytest.fixture(scope="module")
def good_manifest(tmp_path_factory) -> Manifest:
    """Five usable training clips of various sizes, and one of validation."""
    clips = MiniClips(tmp_path_factory.mktemp("mini"))
    return clips.manifest(
        [
            clips.record("a", size=(48, 64)),
            clips.record("b", size=(64, 48), start=5, length=30),
            clips.record("c", size=(32, 48)),
            clips.record("v", split="val"),
            clips.record("d", size=(64, 64), start=3, frames=14),
            clips.record("e", size=(48, 64)),
        ]
    )
