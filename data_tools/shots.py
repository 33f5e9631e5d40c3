"""The step `shots`: every frame is decoded once, to find where the camera cuts and where the file is damaged.

A decoder that loses a packet goes on with wrong pictures, unmarked, until the next key frame. So damage reaches from
a little before the first frame that it spoils (a frame may refer to later ones) to the next key frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from data_tools.records import Probe, Shots, Span
from data_tools.settings import ShotSettings
from lisa_video.data.video_index import VideoIndex, index_video
from lisa_video.data.video_io import numbered_frames, shrunk
from lisa_video.errors import UserError

_REORDERED = 4
"""Frames before a damaged one, in the order of showing, that may depend on it."""


def find_shots(path: Path, probe: Probe, settings: ShotSettings) -> Shots:
    """Split a video at its cuts and around its damage.

    Args:
        path: the file.
        probe: its record.
        settings: of PySceneDetect's adaptive detector, and the least length of a shot.

    Raises:
        VideoReadError: not one frame can be decoded.
        UserError: PySceneDetect is not installed.
    """
    index = index_video(path)
    detector, timecode = _detector(settings, index.fps)
    decoded, cuts, broken = np.zeros(len(index), bool), [], []
    size = shrunk((probe.height, probe.width), settings.width)
    if index.quarter_turns % 2:
        size = size[::-1]
    for number, frame in numbered_frames(path):
        if number >= len(index):
            continue
        if frame is None or frame.is_corrupt:
            broken.append(number)
        if frame is not None:
            decoded[number] = True
            small = frame.reformat(height=size[0], width=size[1], format="bgr24", interpolation="AREA")
            cuts += [cut.frame_num for cut in detector.process_frame(timecode(number), small.to_ndarray())]
    damaged = damaged_frames(index, decoded, broken)
    shots = [
        span
        for span in spans(~damaged, cuts)
        if (span.end - span.start) / index.fps >= settings.min_shot_s or len(index) == span.end - span.start
    ]
    return Shots(shots=tuple(shots), damaged=tuple(spans(damaged)), decoded_frames=int(decoded.sum()))


def damaged_frames(index: VideoIndex, decoded: Bool[np.ndarray, " N"], broken: Iterable[int]) -> Bool[np.ndarray, " N"]:
    """Frames that cannot be trusted.

    Args:
        index: of the video.
        decoded: whether each frame came out of the decoder.
        broken: numbers of frames that the decoder marked, or at which it lost a packet.
    """
    damaged = ~decoded
    keys = np.searchsorted(index.pts, index.key_pts) if index.timed else np.array([], np.int64)
    for number in {*broken, *np.flatnonzero(~decoded).tolist()}:
        # Without times a lost frame shifts the numbers of all that follow.
        later: np.ndarray = keys[keys > number]
        end = int(later[0]) if len(later) else len(index)
        damaged[max(0, number - _REORDERED) : end] = True
    return damaged


def spans(chosen: Bool[np.ndarray, " N"], cuts: Iterable[int] = ()) -> list[Span]:
    """Runs of chosen frames, split before every frame of `cuts`."""
    borders = {0, len(chosen), *cuts, *(np.flatnonzero(np.diff(chosen)) + 1).tolist()}
    edges = sorted(border for border in borders if 0 <= border <= len(chosen))
    return [Span(start=a, end=b) for a, b in pairwise(edges) if chosen[a]]


def _detector(settings: ShotSettings, fps: float) -> tuple[Any, Any]:
    """PySceneDetect's detector, and the function from frame numbers to its time codes."""
    try:
        from scenedetect import AdaptiveDetector, FrameTimecode
    except ImportError as error:
        raise UserError(
            "PySceneDetect is not installed", remedy="install it with `pip install 'lisa-video[data]'`"
        ) from error
    detector = AdaptiveDetector(
        adaptive_threshold=settings.adaptive_threshold,
        min_scene_len=max(1, round(settings.min_shot_s * fps)),
        min_content_val=settings.min_content,
    )
    return detector, lambda number: FrameTimecode(number, fps)
