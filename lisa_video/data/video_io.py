"""Video files in and out: frames by number through decord, H.264 through PyAV.

The only door to both libraries. A reader is opened for each call and never kept, so nothing of it can be shared
with a forked worker (decord fails there).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import Int, UInt8

from lisa_video.errors import UserError

# What FFmpeg has to say about a bad file is in our own error.
decord.logging.set_level(decord.logging.QUIET)


class VideoReadError(UserError):
    """A video file that is missing, damaged, of an unknown format, or too short for the frames asked for."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        num_frames: frames that the container lists.
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
    reader = _open(path)
    _, height, width, _ = _decode(reader, np.zeros(1, np.int64), path).shape
    return VideoInfo(num_frames=len(reader), width=width, height=height, fps=float(reader.get_avg_fps()))


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
    if indices.size == 0 or indices.min() < 0:
        raise ValueError(f"indices must be one or more non-negative frame numbers, not {indices}")
    reader = _open(path)
    if indices.max() >= len(reader):
        raise VideoReadError(
            f"frame {indices.max()} was asked for, the video has {len(reader)}",
            where=path,
            remedy="shorten the clip or replace the video, then build the manifest again",
        )
    return _decode(reader, indices, path)


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


def _open(path: str | Path) -> decord.VideoReader:
    if not Path(path).is_file():
        raise VideoReadError("no such video", where=path, remedy="check the path, or build the manifest again")
    try:
        return decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
    except (RuntimeError, decord.DECORDError) as error:
        raise VideoReadError(
            f"not a readable video ({_first_line(error)})",
            where=path,
            remedy="replace or convert the file (H.264 in MP4 is safe), or leave the clip out of the manifest",
        ) from error


def _decode(reader: decord.VideoReader, indices: np.ndarray, path: str | Path) -> np.ndarray:
    try:
        frames: np.ndarray = reader.get_batch(indices.tolist()).asnumpy()
    except (RuntimeError, decord.DECORDError, IndexError) as error:
        # decord 0.6 miscounts the channels of some widths up to 72 pixels (16, 24, 48, 72): its padded rows, 3 times
        # the width rounded up to 32, happen to be a multiple of the width there.
        if "size must exactly match" in str(error):
            return _decode_sequentially(indices, path)
        raise _damaged(indices, path, error) from error
    return frames


def _decode_sequentially(indices: np.ndarray, path: str | Path) -> np.ndarray:
    """The same frames by PyAV, from the first one on: slow, for tiny pictures only."""
    wanted = set(indices.tolist())
    found: dict[int, np.ndarray] = {}
    try:
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(container.streams.video[0])):
                if number in wanted:
                    found[number] = frame.to_ndarray(format="rgb24")
                if len(found) == len(wanted):
                    break
        return np.stack([found[number] for number in indices.tolist()])
    except (av.FFmpegError, KeyError) as error:
        raise _damaged(indices, path, error) from error


def _damaged(indices: np.ndarray, path: str | Path, error: Exception) -> VideoReadError:
    return VideoReadError(
        f"frames {indices.min()} to {indices.max()} cannot be decoded ({_first_line(error)})",
        where=path,
        remedy="the file is cut or damaged: replace it, or leave the clip out of the manifest",
    )


def _first_line(error: Exception) -> str:
    # decord puts the time before and a C++ stack trace behind.
    return re.sub(r"^\[[\d:]+\] ", "", str(error)).strip().partition("\n")[0] or type(error).__name__
