"""What is looked at on each clip: its file, its frames, its keypoints, and whether they belong to each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from data_tools.doctor.findings import HEAT_CELLS, ClipFindings, Problem
from data_tools.filters import judge
from data_tools.measures import FrameMeasurer, FrameMeasures
from data_tools.probing import is_uneven
from data_tools.records import ClipPlan, Probe
from data_tools.settings import FilterSettings
from lisa_video.data.manifest import ClipRecord, file_digest
from lisa_video.data.video_index import VideoIndex, index_video
from lisa_video.data.video_io import VideoReadError, iter_frames
from lisa_video.errors import UserError
from lisa_video.pose.keypoints import Keypoints, load_keypoints
from lisa_video.pose.skeleton import VISIBLE_SCORE

FPS_TOLERANCE = 0.05
"""Relative difference of a clip's frame rate from its video's that is a problem."""
MARGIN = 0.1
"""Visible joints may lie this share of the frame's longer side outside of it: detectors complete people at the edge."""
MAX_OUTSIDE = 0.5
"""Share of the visible joints beyond that margin from which on the keypoints must be those of something else."""

_CHUNK = 8  # frames in memory at once


@dataclass(frozen=True)
class ClipTask:
    """A clip to look at.

    Attributes:
        root: folder of the manifest.
        record: the clip.
        limits: of the rules.
    """

    root: Path
    record: ClipRecord
    limits: FilterSettings


@dataclass
class _Frames:
    """What decoding a clip has shown."""

    problems: list[Problem] = field(default_factory=list)
    index: VideoIndex | None = None
    measures: FrameMeasures | None = None
    decoded: int = 0


def look_at_clip(task: ClipTask) -> ClipFindings:
    """Decode a clip once and check everything about it; runs in a worker. Memory holds a few frames."""
    cv2.setNumThreads(0)
    record = task.record
    frames = _decode(task)
    poses, problems = _read_keypoints(task)
    findings = ClipFindings(
        clip_id=record.clip_id,
        problems=(*frames.problems, *problems),
        luma=None if frames.measures is None else float(frames.measures.luma.mean()),
        decoded=frames.decoded,
        joints=None if poses is None else joint_places(poses, record),
    )
    if poses is None or frames.index is None or frames.measures is None or frames.decoded != record.num_frames:
        return findings
    verdict = judge(_plan(record), _probe(record, frames.index), poses, frames.measures, task.limits)
    if verdict.reference_track is None:
        nobody = Problem(
            "nobody", "no frame shows a person with three visible joints", record.clip_id, record.keypoints
        )
        findings = replace(findings, problems=(*findings.problems, nobody))
    return replace(findings, values=verdict.values, broken=verdict.broken, reference_track=verdict.reference_track)


def look_at_bytes(task: tuple[Path, ClipRecord]) -> Problem | None:
    """Compare a video's digest with the manifest's; runs in a worker."""
    root, record = task
    try:
        digest = file_digest(root / record.video)
    except OSError:
        return None  # the checks of its clips say so
    if digest == record.source_digest:
        return None
    return Problem("changed", f"{digest[:19]}… instead of {record.source_digest[:19]}…", where=record.video)


def check_keypoints(poses: Keypoints, record: ClipRecord) -> list[Problem]:
    """Problems of keypoints by themselves: counts, numbers that cannot be, people elsewhere than in the frame."""
    problems = []

    def found(check: str, what: str) -> None:
        problems.append(Problem(check, what, record.clip_id, record.keypoints))

    if poses.num_frames != record.num_frames:
        found("count", f"keypoints of {poses.num_frames} frames, the clip has {record.num_frames}")
    known = np.isfinite(poses.xy).all(axis=-1)
    if strange := np.count_nonzero(~np.isfinite(poses.score) | (poses.score < 0) | (poses.score > 1)):
        found("scores", f"{strange} of {poses.score.size} scores are not in [0, 1]")
    if unknown := np.count_nonzero(~known & (poses.score > 0)):
        found("scores", f"{unknown} of {poses.score.size} joints have a score and no place")
    visible = known & (poses.score >= VISIBLE_SCORE)
    if visible.any():
        margin = MARGIN * max(record.width, record.height)
        xy = poses.xy[visible]
        outside = ((xy < -margin) | (xy > np.array([record.width, record.height]) + margin)).any(axis=-1).mean()
        if outside > MAX_OUTSIDE:
            found(
                "outside", f"{outside:.0%} of the visible joints lie outside of {record.width}x{record.height} pixels"
            )
    return problems


def joint_places(poses: Keypoints, record: ClipRecord) -> np.ndarray:
    """(32, 32) int32 counts of visible joints in the cells of the frame, rows from the top."""
    visible = (poses.score >= VISIBLE_SCORE) & np.isfinite(poses.xy).all(axis=-1)
    share = poses.xy[visible] / np.array([record.width, record.height])
    share = share[((share >= 0) & (share < 1)).all(axis=-1)]
    cells = (share * HEAT_CELLS).astype(int)
    counts = np.zeros((HEAT_CELLS, HEAT_CELLS), np.int32)
    np.add.at(counts, (cells[:, 1], cells[:, 0]), 1)
    return counts


def clip_rate(index: VideoIndex, record: ClipRecord) -> float:
    """Frames per second of the video from the clip's first frame to its last, by their times."""
    first, last = record.start_frame, record.start_frame + (record.num_frames - 1) * record.frame_stride
    if last >= len(index) or first == last:
        return index.fps
    return (last - first) / float((index.pts[last] - index.pts[first]) * index.time_base)


def clip_frames(root: Path, record: ClipRecord) -> Iterator[np.ndarray]:
    """Frames of a clip in chunks, (f, H, W, 3) uint8 RGB.

    Raises:
        VideoReadError: the file is missing or damaged.
    """
    return iter_frames(root / record.video, record.in_video(np.arange(record.num_frames)), _CHUNK)


def _decode(task: ClipTask) -> _Frames:
    record, seen = task.record, _Frames()
    path = task.root / record.video

    def found(check: str, what: str) -> None:
        seen.problems.append(Problem(check, what, record.clip_id, record.video))

    if not path.is_file():
        found("missing", "no such file")
        return seen
    measurer = FrameMeasurer()
    try:
        index = seen.index = index_video(path)
        for chunk in clip_frames(task.root, record):
            if chunk.shape[1:3] != (index.height, index.width):
                found("size", f"from frame {seen.decoded} on the size is {chunk.shape[2]}x{chunk.shape[1]} pixels")
                break
            measurer.update(chunk)
            seen.decoded += len(chunk)
    except VideoReadError as error:
        found("decode", error.what)
    if seen.decoded:
        seen.measures = measurer.result()
    if seen.index is not None:
        size, said = f"{seen.index.width}x{seen.index.height}", f"{record.width}x{record.height}"
        if size != said:
            found("size", f"frames of {size} pixels, the manifest says {said}")
        fps = clip_rate(seen.index, record)
        if abs(fps / record.fps - 1) > FPS_TOLERANCE:
            found("fps", f"the video has {fps:.3g} frames per second there, the manifest says {record.fps:.3g}")
    return seen


def _read_keypoints(task: ClipTask) -> tuple[Keypoints | None, list[Problem]]:
    """The keypoints if they are of as many frames as the clip, and the problems that they have."""
    record = task.record
    try:
        poses = load_keypoints(task.root / record.keypoints)
    except UserError as error:
        return None, [Problem("keypoints", error.what, record.clip_id, record.keypoints)]
    return (poses if poses.num_frames == record.num_frames else None), check_keypoints(poses, record)


def _plan(record: ClipRecord) -> ClipPlan:
    return ClipPlan(
        clip_id=record.clip_id,
        start=record.start_frame,
        num_frames=record.num_frames,
        stride=record.frame_stride,
        fps=record.fps,
    )


def _probe(record: ClipRecord, index: VideoIndex) -> Probe:
    """What the rules want to know of the video; sizes as the manifest has them, since the keypoints are in those."""
    return Probe(
        digest=record.source_digest,
        size_bytes=0,
        codec=index.codec,
        width=record.width,
        height=record.height,
        rotation=0,
        num_frames=len(index),
        fps=index.fps,
        seconds=index.seconds,
        variable_rate=is_uneven(index),
    )
