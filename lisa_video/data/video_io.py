"""Video files in and out: exact frames by number, through decord and PyAV; H.264 through PyAV.

decord serves files whose frames it numbers rightly (`VideoIndex.plain`); PyAV serves all others and those that decord
gives up on, with the same bits, and reads clips in pieces. A reader is opened for each call and never kept, so nothing
of it can be shared with a forked worker (decord fails there).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import Int, UInt8

from lisa_video.data.video_index import VideoIndex, VideoReadError, index_video, opened
from lisa_video.errors import UserError

__all__ = ["VideoInfo", "VideoReadError", "iter_frames", "probe", "read_frames", "shrunk", "write_video"]

# What FFmpeg has to say about a bad file is in our own error.
decord.logging.set_level(decord.logging.QUIET)
av.logging.set_level(None)

_CHUNK = 64


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        num_frames: frames that are shown, counted from the packets.
        width: of the decoded frames, pixels.
        height: of the decoded frames, pixels.
        fps: average frames per second.
    """

    num_frames: int
    width: int
    height: int
    fps: float


def probe(path: str | Path) -> VideoInfo:
    """Measure a video; its first frame is decoded, so what passes here can at least be started.

    Raises:
        VideoReadError: the file cannot be opened, or its first frame cannot be decoded.
    """
    index = index_video(path)
    return VideoInfo(num_frames=len(index), width=index.width, height=index.height, fps=index.fps)


def read_frames(path: str | Path, indices: Int[np.ndarray, " F"]) -> UInt8[np.ndarray, "F H W 3"]:
    """Decode the frames with the given numbers, exactly these, in this order.

    Args:
        path: the video file.
        indices: (F,) frame numbers from 0, at least one; repeats are allowed.

    Returns:
        (F, H, W, 3) uint8 RGB.

    Raises:
        VideoReadError: the file cannot be opened, ends before the last index, or is damaged there.
    """
    if _checked_index(path, indices).plain:
        frames = _read_with_decord(path, indices)
        if frames is not None:
            return frames
    wanted, places = np.unique(indices, return_inverse=True)
    whole: np.ndarray = np.concatenate(list(iter_frames(path, wanted, _CHUNK)))[places]
    return whole


def iter_frames(
    path: str | Path, indices: Int[np.ndarray, " F"], chunk: int, max_side: int | None = None
) -> Iterator[UInt8[np.ndarray, "f H W 3"]]:
    """Decode frames in one pass, at most `chunk` of them in memory.

    Args:
        path: the video file.
        indices: (F,) frame numbers from 0, strictly rising, at least one.
        chunk: frames to yield at once.
        max_side: larger frames are shrunk while they are decoded, see `shrunk`; None: full size.

    Raises:
        VideoReadError: the file cannot be opened, ends before the last index, or is damaged there.
    """
    index = _checked_index(path, indices)
    if (np.diff(indices) <= 0).any():
        raise ValueError("frame numbers must rise strictly")
    size = shrunk((index.height, index.width), max_side)
    ready: list[np.ndarray] = []
    places = indices.tolist()
    with opened(path) as container:
        for number, frame in _numbered_frames(container, index, places[0]):
            if number == places[len(ready)] and frame is not None:
                ready.append(_pixels(frame, index.quarter_turns, size))
            elif number > places[len(ready)]:
                raise _missing(path, places[len(ready)])
            if len(ready) == min(chunk, len(places)):
                yield np.stack(ready)
                places, ready = places[len(ready) :], []
                if not places:
                    return
    raise _missing(path, places[len(ready)])


def shrunk(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """(H, W) brought down so that the longer side is at most `max_side`, each side rounded and at least 1."""
    if max_side is None or max(size) <= max_side:
        return size
    return max(1, round(size[0] * max_side / max(size))), max(1, round(size[1] * max_side / max(size)))


def numbered_frames(path: str | Path) -> Iterator[tuple[int, av.VideoFrame | None]]:
    """All frames of a video with their numbers, in one pass; None at each packet that cannot be decoded.

    Raises:
        VideoReadError: the file cannot be opened.
    """
    index = index_video(path)
    with opened(path) as container:
        yield from _numbered_frames(container, index, 0, tolerant=True)


def _checked_index(path: str | Path, indices: np.ndarray) -> VideoIndex:
    if indices.size == 0 or indices.min() < 0:
        raise ValueError(f"indices must be one or more non-negative frame numbers, not {indices}")
    index = index_video(path)
    if indices.max() >= len(index):
        raise VideoReadError(
            f"frame {indices.max()} was asked for, the video has {len(index)}",
            where=path,
            remedy="shorten the clip or replace the video, then build the manifest again",
        )
    return index


def _numbered_frames(
    container: av.container.InputContainer, index: VideoIndex, first: int, *, tolerant: bool = False
) -> Iterator[tuple[int, av.VideoFrame | None]]:
    """Frames with their numbers, from the key frame before `first` on; a broken packet gives (next number, None)."""
    stream = container.streams.video[0]
    if index.timed and first and (index.key_pts > index.pts[0]).any():
        container.seek(int(index.pts[first]), stream=stream, backward=True)
    number = -1
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            if not tolerant:
                raise
            yield number + 1, None
            continue
        for frame in frames:
            number = _number(frame, index, number)
            if number >= 0:
                yield number, frame


def _number(frame: av.VideoFrame, index: VideoIndex, before: int) -> int:
    """Number of a frame: by its time, or by counting; -1 for one that is not shown."""
    if not index.timed:
        return before + 1
    place = int(np.searchsorted(index.pts, frame.pts)) if frame.pts is not None else len(index)
    return place if place < len(index) and index.pts[place] == frame.pts else -1


def _pixels(frame: av.VideoFrame, quarter_turns: int, size: tuple[int, int]) -> np.ndarray:
    height, width = size if quarter_turns % 2 == 0 else size[::-1]
    if (height, width) == (frame.height, frame.width):
        picture = frame.to_ndarray(format="rgb24")
    else:
        picture = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
    return np.rot90(picture, quarter_turns)


def write_video(path: str | Path, frames: UInt8[np.ndarray, "F H W 3"], fps: float | int, *, crf: int = 14) -> None:
    """Write an MP4 file (H.264, yuv420p), under a temporary name first; equal frames give equal bytes.

    Args:
        path: the file to write or replace; its folder must exist.
        frames: (F, H, W, 3) uint8 RGB, at least one; H and W even.
        fps: frames per second.
        crf: x264's constant rate factor: 0 is the best, 14 is hard to tell from the source, 23 is x264's default.

    Raises:
        UserError: H or W is odd, which yuv420p cannot store.
    """
    path = Path(path)
    num_frames, height, width, _ = frames.shape
    if num_frames == 0:
        raise ValueError("a video needs at least one frame")
    if height % 2 or width % 2:
        raise UserError(
            f"frames of {width}x{height} pixels, H.264 needs an even width and height",
            where=path,
            remedy="crop or resize the frames to an even size",
        )
    draft = path.with_name(path.name + ".tmp")
    try:
        _encode(draft, frames, Fraction(fps).limit_denominator(1001), crf)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _encode(path: Path, frames: np.ndarray, rate: Fraction, crf: int) -> None:
    # bitexact leaves the writer's version out of the file; one thread, because x264's result depends on their number.
    container_options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", options=container_options) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        # The conversion to yuv420p follows BT.601; untagged, players would guess BT.709 for large pictures.
        stream.codec_context.colorspace, stream.codec_context.color_primaries = Colorspace.ITU601, 5
        stream.codec_context.color_range, stream.codec_context.color_trc = ColorRange.MPEG, 6
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = number, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _read_with_decord(path: str | Path, indices: np.ndarray) -> np.ndarray | None:
    """The frames as decord sees them, or None if it gives up.

    It reads ahead, so damage anywhere can stop it, now and then. Of some widths (16, 24, 48, 72) it miscounts the
    channels: its padded rows, 3 times the width rounded up to 32, happen to be a multiple of the width there.
    """
    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        frames: np.ndarray = reader.get_batch(indices.tolist()).asnumpy()
    except (RuntimeError, decord.DECORDError, IndexError):
        return None
    return frames


def _missing(path: str | Path, number: int) -> VideoReadError:
    return VideoReadError(
        f"frame {number} is missing",
        where=path,
        remedy="the file is cut or damaged: replace it, or leave the clip out of the manifest",
    )
