"""A detector and an extractor whose answers are known, and arms made of synthetic clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from eval.distances.features import FeatureExtractor
from eval.report.arms import ArmResult, ShownClip
from eval.runs.evaluation import Evaluation
from eval.runs.scoring import PosedClip, distance_between, pixel_scores, pose_scores, psnr_db
from lisa_video.data.video_io import write_video
from lisa_video.pose.detector import People, PoseDetector
from lisa_video.pose.keypoints import Keypoints

FRAMES, SIZE = 6, 32
OFFSETS = np.stack([np.linspace(0, 12, 17), np.tile([0.0, 16.0], 9)[:17]], axis=1)
"""Joints of the figure relative to its first; the box is 12 x 16 pixels, the diagonal 20."""


class BlueDetector(PoseDetector):
    """Reads the pose from the frame: the blue value of pixel (0, 0) is the x of the figure's first joint."""

    name = "blue pixel"
    digest = "sha256:" + "0" * 64
    skeleton = "coco17"

    def find(self, frames: np.ndarray) -> list[People]:
        """See `PoseDetector`."""
        found = figure(frames[:, 0, 0, 2].astype(float))
        box = np.array([[0, 0, SIZE, SIZE, 1]], np.float32)
        return [People(xy, score, box) for xy, score in zip(found.xy, found.score, strict=True)]


class MeanColour(FeatureExtractor):
    """The mean of each channel."""

    name = "mean colour"
    digest = "sha256:" + "1" * 64
    dimension = 3
    protocol = {"name": "mean colour"}  # noqa: RUF012

    def features(self, videos: np.ndarray) -> np.ndarray:
        """See `FeatureExtractor`."""
        return videos.astype(np.float64).mean(axis=(1, 2, 3))


def figure(x: np.ndarray) -> Keypoints:
    """One person, 17 visible joints, the first at (x, 8)."""
    xy = OFFSETS[None, None] + np.stack([x, np.full(len(x), 8.0)], axis=-1)[:, None, None]
    return Keypoints(xy.astype(np.float32), np.ones(xy.shape[:3], np.float32), np.zeros(1, np.int64))


class GeneratedClip(NamedTuple):
    """A clip and its truth, (F, H, W, 3) uint8 RGB, with the pose of the truth."""

    clip_id: str
    generated: np.ndarray
    truth: np.ndarray
    driving: Keypoints


def make_clip_pair(number: int, error_px: int) -> GeneratedClip:
    """A clip whose generated version shows the figure `error_px` to the right of the driving pose."""
    generator = np.random.default_rng(number)
    truth = generator.integers(0, 200, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    x = np.arange(FRAMES) + number
    truth[:, 0, 0, 2] = x
    generated = np.clip(truth.astype(int) + 10, 0, 255).astype(np.uint8)
    generated[:, 0, 0, 2] = x + error_px
    return GeneratedClip(f"clip-{number}", generated, truth, figure(x.astype(float)))


def make_evaluation(clips: list[GeneratedClip], protocol: dict[str, Any]) -> Evaluation:
    """Scores of clips by `BlueDetector`, `MeanColour` and PSNR."""
    detector, extractor = BlueDetector(), MeanColour()
    posed = [
        PosedClip(clip.clip_id, detector.detect(clip.generated), detector.detect(clip.truth), clip.driving)
        for clip in clips
    ]
    generated, true = (
        {clip.clip_id: extractor.features(getattr(clip, part)[None])[0] for clip in clips}
        for part in ("generated", "truth")
    )
    return Evaluation(
        (pose_scores(posed, detector, protocol=protocol),),
        (distance_between(generated, true, extractor, protocol=protocol),),
        pixel_scores({clip.clip_id: psnr_db(clip.generated, clip.truth) for clip in clips}, protocol=protocol),
    )


@pytest.fixture
def clip_pair() -> Callable[[int, int], GeneratedClip]:
    """See `make_clip_pair`; clips have 6 frames."""
    return make_clip_pair


@pytest.fixture(scope="session")
def make_videos() -> Callable[..., Path]:
    """`make_videos(folder, {"a": 20, "sub/b": 12}, fps=10)`: MP4 files of so many frames, bright as they are numbered.

    A frame of number n is grey 40 + 4 n + `brightness`; frames have the given (H, W).
    """

    def make(
        folder: Path, lengths: dict[str, int], *, fps: float = 10, brightness: int = 0, size: tuple[int, int] = (32, 32)
    ) -> Path:
        for name, count in lengths.items():
            path = folder / f"{name}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = 40 + 4 * np.arange(count) + brightness + len(name)
            write_video(path, np.broadcast_to(grey[:, None, None, None], (count, *size, 3)).astype(np.uint8), fps)
        return folder

    return make


@pytest.fixture
def detector() -> PoseDetector:
    """See `BlueDetector`."""
    return BlueDetector()


@pytest.fixture
def extractor() -> FeatureExtractor:
    """See `MeanColour`."""
    return MeanColour()


@pytest.fixture(scope="session")
def make_arm() -> Callable[..., ArmResult]:
    """Make an arm from its errors in pixels, one per clip."""

    def make(name: str, errors: list[int], *, protocol: dict[str, Any] | None = None, **facts: Any) -> ArmResult:
        clips = [make_clip_pair(number, error) for number, error in enumerate(errors)]
        evaluation = make_evaluation(clips, protocol or {"guidance": 2.0})
        return ArmResult(name, evaluation, {clip.clip_id: clip.generated for clip in clips}, **facts)

    return make


@pytest.fixture(scope="session")
def shown() -> list[ShownClip]:
    """The first two clips, for the gallery."""
    pairs = [make_clip_pair(number, 0) for number in range(2)]
    return [ShownClip(pair.clip_id, pair.truth, pair.driving, 8.0) for pair in pairs]
