"""The step `poses`: every clip of a video is decoded once, in pieces, for the detector and the measurements alike.

Results are files of their own, a pair for each clip, whose names hold a digest of all that decided them. So a video
that was stopped half way goes on where it was, and another clip length keeps the clips that it does not change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from data_tools.measures import MEASURES_VERSION, FrameMeasurer, FrameMeasures, load_measures, save_measures
from data_tools.records import ClipPlan, ClipPoses, Clips, Poses, Probe
from data_tools.settings import PoseSettings
from lisa_video.config.detector import DetectorSettings
from lisa_video.data.manifest import file_digest
from lisa_video.data.video_io import VideoReadError, iter_frames
from lisa_video.errors import UserError
from lisa_video.pose.keypoints import KEYPOINTS_VERSION, Keypoints, load_keypoints, save_keypoints

if TYPE_CHECKING:  # torch: keys are computed without it
    from lisa_video.pose.detector import PoseDetector

POSES_FOLDER = "poses"
"""Of a video's folder."""

_CHUNK = 32  # frames in memory at once


def find_poses(path: Path, probe: Probe, clips: Clips, folder: Path, settings: PoseSettings) -> Poses:
    """Detect people in all clips of a video.

    Args:
        path: the video.
        probe: what it holds.
        clips: its clips.
        folder: of the video; its files of other clips or settings are removed.
        settings: detector, and size of the frames that it sees.

    Returns:
        Names of the files, and the clips that could not be decoded.

    Raises:
        UserError: the detector cannot be used here.
    """
    detector = _detector(settings.detector)
    (folder / POSES_FOLDER).mkdir(parents=True, exist_ok=True)
    done, failed = [], []
    for plan in clips.clips:
        name = f"{POSES_FOLDER}/{plan.clip_id}-{_clip_key(plan, settings)[:16]}"
        files = ClipPoses(clip_id=plan.clip_id, keypoints=f"{name}.npz", measures=f"{name}.measures.npz")
        # Keypoints are written last: where they are, the measurements are too.
        if not (folder / files.keypoints).exists():
            try:
                keypoints, measures = _detect(path, probe, plan, detector, settings.max_side)
            except VideoReadError as error:
                failed.append((plan.clip_id, error.what))
                continue
            save_measures(folder / files.measures, measures)
            save_keypoints(folder / files.keypoints, keypoints)
        done.append(files)
    wanted = {name for clip in done for name in (clip.keypoints, clip.measures)}
    for file in (folder / POSES_FOLDER).iterdir():
        if f"{POSES_FOLDER}/{file.name}" not in wanted:
            file.unlink()
    return Poses(detector=detector.name, detector_digest=detector.digest, clips=tuple(done), failed=tuple(failed))


def read_poses(folder: Path, clip: ClipPoses) -> tuple[Keypoints, FrameMeasures]:
    """Keypoints and measurements of one clip of the video with this folder.

    Raises:
        VideoReadError: a file is missing or damaged.
    """
    try:
        return load_keypoints(folder / clip.keypoints), load_measures(folder / clip.measures)
    except UserError as error:
        raise VideoReadError(
            error.what, where=error.where, remedy=f"delete {folder} and run the same command again"
        ) from error


def dependencies(settings: PoseSettings) -> Any:
    """What decides the result besides the clips: settings and weights, but not the machine that computes."""
    return [settings.max_side, _detector_identity(settings.detector), MEASURES_VERSION, KEYPOINTS_VERSION]


def _clip_key(plan: ClipPlan, settings: PoseSettings) -> str:
    parts = [plan.model_dump(mode="json"), dependencies(settings)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1)  # once a process: weights are large
def _detector(settings: DetectorSettings) -> PoseDetector:
    from lisa_video.pose.detectors.load import load_detector

    return load_detector(settings)


@lru_cache(maxsize=1)
def _detector_identity(settings: DetectorSettings) -> dict[str, Any]:
    """The settings, with the digest of a file in the place of its name."""
    values = settings.model_dump(mode="json", exclude={"device", "batch_size"})
    for part in (values, values["person"]):
        for key in ("config", "checkpoint"):
            if part[key] is not None:
                part[key] = _content(Path(part[key]))
    return values


def _content(path: Path) -> Any:
    if path.is_dir():
        return [[file.name, file_digest(file)] for file in sorted(path.iterdir()) if file.is_file()]
    return file_digest(path) if path.is_file() else str(path)


def _detect(
    path: Path, probe: Probe, plan: ClipPlan, detector: PoseDetector, max_side: int
) -> tuple[Keypoints, FrameMeasures]:
    """One pass over the frames of a clip; keypoints in pixels of the full-size frames."""
    measurer = FrameMeasurer()
    size = (probe.height, probe.width)

    def measured() -> Iterator[UInt8[np.ndarray, "f H W 3"]]:
        nonlocal size
        frames = plan.start + plan.stride * np.arange(plan.num_frames)
        for chunk in iter_frames(path, frames, _CHUNK, max_side=max_side):
            measurer.update(chunk)
            size = chunk.shape[1:3]
            yield chunk

    keypoints = detector.detect_chunks(measured(), fps=plan.fps / plan.stride)
    measures = measurer.result()
    assert keypoints.num_frames == measures.num_frames == plan.num_frames
    scale = np.array([probe.width / size[1], probe.height / size[0]], np.float32)
    return Keypoints(keypoints.xy * scale, keypoints.score, keypoints.track_id, keypoints.skeleton), measures
