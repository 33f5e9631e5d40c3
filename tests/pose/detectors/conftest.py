"""Clips and settings that the tests of top-down detectors share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_tools.demo.generate import generate_demo_data
from lisa_video.config.detector import DetectorSettings, PersonSettings
from lisa_video.data.manifest import Manifest
from lisa_video.data.video_io import read_frames
from lisa_video.pose.detectors.boxes import PersonDetector
from lisa_video.pose.keypoints import Keypoints, load_keypoints

ASSETS = Path(__file__).parents[2] / "assets"


class FixedBoxes(PersonDetector):
    """The same boxes in every frame."""

    name, digest = "fixed boxes", ""

    def __init__(self, *boxes: tuple[float, ...]) -> None:
        self._rows = np.array([(*box, 1.0) for box in boxes], np.float32).reshape(-1, 5)

    def boxes(self, frames: np.ndarray) -> list[np.ndarray]:
        return [self._rows.copy() for _ in frames]


@pytest.fixture(scope="session")
def fixed_boxes() -> type[FixedBoxes]:
    """`fixed_boxes((left, top, right, bottom), ...)` -> a person detector that answers these boxes."""
    return FixedBoxes


@pytest.fixture(scope="session")
def held_out(tmp_path_factory) -> list[tuple[np.ndarray, Keypoints]]:
    """Frames (16, 64, 64, 3) and exact poses of six demo clips; motions and looks that no network was trained on."""
    folder = tmp_path_factory.mktemp("held_out")
    path = generate_demo_data(folder, clips=7, seed=7, val_fraction=0.9, workers=1, progress=False)
    clips = Manifest(path, "val")
    return [
        (
            read_frames(clips.resolve(clip.video), clip.in_video(np.arange(clip.num_frames))),
            load_keypoints(clips.resolve(clip.keypoints)),
        )
        for clip in (clips[index] for index in range(6))
    ]


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder of files made by the scripts in it."""
    return ASSETS


@pytest.fixture(scope="session")
def mmpose_demo() -> DetectorSettings:
    """The RTMPose that was trained on demo data, as a config and a checkpoint of mmpose."""
    folder = ASSETS / "mmpose_demo"
    return DetectorSettings(
        kind="mmpose",
        config=str(folder / "rtmpose_demo.py"),
        checkpoint=str(folder / "rtmpose_demo.pth"),
        person=PersonSettings(kind="whole_frame"),
    )


@pytest.fixture(scope="session")
def rtmpose_demo() -> DetectorSettings:
    """The same network as an ONNX file."""
    checkpoint = str(ASSETS / "mmpose_demo" / "rtmpose_demo.onnx")
    return DetectorSettings(kind="rtmpose", checkpoint=checkpoint, person=PersonSettings(kind="whole_frame"))
