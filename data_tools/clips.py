"""The step `clips`: shots are cut into clips, by arithmetic; every frame of a shot is in a clip or counted as left."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from data_tools.records import ClipPlan, Clips, Probe, Shots, Span
from data_tools.settings import ClipSettings
from lisa_video.data.video_index import index_video


def plan_clips(path: Path, probe: Probe, shots: Shots, settings: ClipSettings) -> Clips:
    """Cut the shots of a video into clips of equal stride that do not overlap.

    A clip of n frames at stride k covers n k frames of the video. A shot gives as few clips as `max_frames` allows,
    all of about the same length, so that no short rest is thrown away.

    Args:
        path: the video, whose timestamps tell the real frame rate of each clip.
        probe: its record.
        shots: its record.
        settings: lengths and target frame rate.
    """
    stride = 1 if settings.target_fps is None else max(1, round(probe.fps / settings.target_fps))
    trim = round(settings.trim_s * probe.fps)
    index = index_video(path)
    clips, used = [], 0
    for shot in shots.shots:
        for start, num_frames in cut(Span(start=shot.start + trim, end=max(shot.start + trim, shot.end - trim)),
                                     stride, settings.min_frames, settings.max_frames):  # fmt: skip
            last = start + (num_frames - 1) * stride
            seconds = float((index.pts[last] - index.pts[start]) * index.time_base)
            clips.append(
                ClipPlan(
                    clip_id=f"{probe.digest.removeprefix('sha256:')[:16]}-{start:07d}",
                    start=start,
                    num_frames=num_frames,
                    stride=stride,
                    fps=(last - start) / seconds if seconds > 0 else probe.fps,
                )
            )
            used += num_frames * stride
    total = sum(shot.end - shot.start for shot in shots.shots)
    return Clips(clips=tuple(clips), too_short=total - used)


def cut(shot: Span, stride: int, min_frames: int, max_frames: int) -> list[tuple[int, int]]:
    """(start, frames taken) of the clips of a shot: as few as possible, as even as possible."""
    available = (shot.end - shot.start) // stride
    if available < min_frames:
        return []
    pieces = -(-available // max_frames)
    if available // pieces < min_frames:  # even pieces would all be too short: full ones, and the rest is left
        pieces = available // max_frames
        available = pieces * max_frames
    starts = [shot.start + stride * (available * piece // pieces) for piece in range(pieces + 1)]
    return [(a, (b - a) // stride) for a, b in pairwise(starts)]
