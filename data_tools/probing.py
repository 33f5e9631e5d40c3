"""The step `probe`: what a video file really holds, and whether it can be used at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_tools.records import Probe
from data_tools.settings import ProbeSettings
from lisa_video.data.manifest import file_digest
from lisa_video.data.video_index import VideoIndex, VideoReadError, index_video

_UNEVEN = 1.5  # longest distance of frames over the middle one: above, the frame rate is called variable


def probe_video(path: Path, settings: ProbeSettings) -> Probe:
    """Measure a video from its packets and its first frame; headers that lie are not believed.

    Args:
        path: the file.
        settings: what counts as usable.

    Raises:
        VideoReadError: not a moving picture, not one frame can be decoded, too large, or too slow or fast; nothing of
            a frame that is too large is decoded.
    """
    index = index_video(path, settings.max_pixels)
    if len(index) == 1:
        raise VideoReadError("a single frame, no moving picture", where=path, remedy="remove the file")
    if not settings.min_fps <= index.fps <= settings.max_fps:
        raise VideoReadError(
            f"{index.fps:.3g} frames per second, not within {settings.min_fps:g} to {settings.max_fps:g}",
            where=path,
            remedy="convert the video to another frame rate, or change probe.min_fps or probe.max_fps",
        )
    return Probe(
        digest=file_digest(path),
        size_bytes=path.stat().st_size,
        codec=index.codec,
        width=index.width,
        height=index.height,
        rotation=-90 * index.quarter_turns % 360,
        num_frames=len(index),
        fps=index.fps,
        seconds=index.seconds,
        variable_rate=is_uneven(index),
    )


def is_uneven(index: VideoIndex) -> bool:
    """Whether the frame rate varies: a distance of frames is more than half as long again as the middle one."""
    distances = np.diff(index.pts)
    return bool(distances.max() > _UNEVEN * np.median(distances))
