"""`VideoIndex`: which frames a file really shows, from its packets and first frame; nothing claimed is believed.

Frame numbers count the frames that are shown, in the order in which they are. A packet's frame is not shown if it comes
before the first key frame, in the file or in time, or if an edit list cuts it off.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer

from lisa_video.errors import UserError

# Containers whose packets carry the time at which their frame is shown, and in which one can jump to a time.
_TIMED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
_STILLS = ("_pipe", "image2", "tty", "gif", "ico", "apng")


class VideoReadError(UserError):
    """A video file that is missing, damaged, of an unknown format, or too short for the frames asked for."""


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """The frames of a video file.

    Attributes:
        pts: (N,) int64, rising: when each frame is shown, in units of `time_base`. Where the container does not say,
            frames are evenly spaced.
        time_base: seconds.
        timed: whether a frame can be found by its time; else only by counting from the first one.
        plain: whether decord numbers the frames in the same way: no frame is cut off or turned, none refers to frames
            before a key frame, and there are as many as the container claims.
        codec: name, such as "h264".
        width: of the frames as shown, pixels.
        height: likewise.
        quarter_turns: by which stored pictures are turned to the left before they are shown.
        key_pts: (M,) int64, rising: times of the frames from which decoding can start.
    """

    pts: np.ndarray
    time_base: Fraction
    timed: bool
    plain: bool
    codec: str
    width: int
    height: int
    quarter_turns: int
    key_pts: np.ndarray

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def seconds(self) -> float:
        """From the first frame to the end of the last one, which is taken to last as long as the average."""
        return len(self) / self.fps

    @property
    def fps(self) -> float:
        """Average frames per second."""
        if len(self) == 1:
            return float(1 / self.time_base)
        return float((len(self) - 1) / (int(self.pts[-1] - self.pts[0]) * self.time_base))


def index_video(path: str | Path, max_pixels: int | None = None) -> VideoIndex:
    """Index a video; unchanged files are indexed once a process.

    Args:
        path: the video file.
        max_pixels: of a frame; larger ones are refused before any is decoded.

    Raises:
        VideoReadError: the file is missing, holds no moving picture, cannot be started, or is too large.
    """
    try:
        stat = Path(path).stat()
    except FileNotFoundError as error:
        raise VideoReadError(
            "no such video", where=path, remedy="check the path, or build the manifest again"
        ) from error
    return _index(str(path), stat.st_size, stat.st_mtime_ns, max_pixels)


@contextmanager
def opened(path: str | Path) -> Iterator[InputContainer]:
    """A container with one decoding thread; what FFmpeg says against the file becomes a `VideoReadError`."""
    try:
        # "file:" keeps FFmpeg from taking % or : in a name for a pattern or a protocol.
        with av.open(f"file:{path}") as container:
            if not container.streams.video or any(word in container.format.name for word in _STILLS):
                raise _unreadable(path, "there is no moving picture in it")
            if container.streams.video[0].codec_context is None:
                raise _unreadable(path, "its codec is not known")
            container.streams.video[0].codec_context.thread_count = 1
            yield container
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or str(error)) from error


@functools.lru_cache(maxsize=64)
def _index(path: str, size: int, mtime_ns: int, max_pixels: int | None) -> VideoIndex:
    if size == 0:
        raise _unreadable(path, "the file is empty")
    with opened(path) as container:
        stream, context = container.streams.video[0], container.streams.video[0].codec_context
        if max_pixels is not None and context.width * context.height > max_pixels:
            raise VideoReadError(
                f"frames of {context.width}x{context.height} pixels, more than {max_pixels:,} are not taken",
                where=path,
                remedy="make the video smaller, or raise probe.max_pixels",
            )
        packets = [
            (packet.pts, bool(packet.is_keyframe), bool(packet.is_discard))
            for packet in container.demux(stream)
            if packet.size
        ]
        rate, time_base = stream.average_rate or stream.guessed_rate, stream.time_base
        timed = container.format.name in _TIMED and all(pts is not None for pts, _, _ in packets)
        honest = stream.frames in (0, len(packets))  # decord reserves memory for the number that is claimed, and aborts
        name = context.codec.canonical_name
    turns, first_size = _first_frame(path)
    first_key = next((place for place, packet in enumerate(packets) if packet[1]), None)
    if first_key is None or time_base is None:
        raise _unreadable(path, "no frame in it can be decoded")
    pts, keys, leading = _shown(packets, first_key)
    timed = timed and len(np.unique(pts)) == len(pts)
    if not timed:
        pts, time_base = np.arange(len(pts)), 1 / Fraction(rate or 25)
    if len(pts) == 0:
        raise _unreadable(path, "no frame in it is shown")
    cut_off = first_key > 0 or any(discarded for _, _, discarded in packets)
    height, width = first_size if turns % 2 == 0 else first_size[::-1]
    plain = timed and honest and not leading and not cut_off and turns == 0 and name != "av1"
    return VideoIndex(np.sort(pts), Fraction(time_base), timed, plain, name, width, height, turns, keys)


def _shown(packets: list[tuple[int | None, bool, bool]], first_key: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Times of the frames that are shown, times of key frames, and whether a frame refers to before its key frame."""
    start = packets[first_key][0]
    times, keys, leading, key = [], [], False, start
    for pts, is_key, discarded in packets[first_key:]:
        if is_key:
            key = pts
        if pts is None or start is None or key is None:
            times.append(-1)
            continue
        leading |= pts < key
        if is_key:
            keys.append(pts)
        if not discarded and pts >= start:
            times.append(pts)
    return np.array(times, np.int64), np.unique(np.array(keys, np.int64)), leading


def _first_frame(path: str) -> tuple[int, tuple[int, int]]:
    """Quarter turns to the left, and the (H, W) of the stored picture."""
    with opened(path) as container:
        for packet in container.demux(container.streams.video[0]):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue  # damage at the start does not spoil what comes after it
            for frame in frames:
                turns = frame.rotation // 90 % 4 if frame.rotation % 90 == 0 else 0
                return turns, (frame.height, frame.width)
    raise _unreadable(path, "no frame in it can be decoded")


def _unreadable(path: str | Path, why: str) -> VideoReadError:
    why = " ".join(why.split())
    return VideoReadError(
        f"not a readable video ({why})",
        where=path,
        remedy="replace or convert the file (H.264 in MP4 is safe), or leave it out",
    )
