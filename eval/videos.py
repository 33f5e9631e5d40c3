"""Folders of videos as a stream of clips: which frames are taken is a protocol, and what cannot be used is counted.

Frames are taken by their numbers, never resampled in time. Files are opened and decoded ahead in threads (decord
lets go of the interpreter lock), a few clips at most, so memory depends neither on the number of videos nor on their
length.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8

from lisa_video.data.video_io import VideoReadError, probe, read_frames
from lisa_video.errors import UserError

VIDEO_SUFFIXES = frozenset(".avi .flv .gif .m4v .mkv .mov .mp4 .mpeg .mpg .ts .webm .wmv".split())
"""Files that count as videos, in small letters."""
_THREADS = min(16, os.cpu_count() or 1)
_AHEAD = _THREADS + 2  # clips decoded before they are asked for; 16 frames of 1920 x 1080 are 100 MB
_logger = logging.getLogger(__name__)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class ClipProtocol:
    """Which frames of a video make a clip.

    Attributes:
        num_frames: F, frames of a clip.
        stride: distance of neighbouring frames of a clip in the video.
        clips_per_video: so many at most; None: all that fit. Clips of a video share no frame.
        start: where the clips lie in the video: from its first frame on, or around its middle.
    """

    num_frames: int
    stride: int = 1
    clips_per_video: int | None = 1
    start: Literal["first", "middle"] = "first"

    def __post_init__(self) -> None:
        if min(self.num_frames, self.stride, self.clips_per_video or 1) < 1:
            raise UserError(
                f"frames, stride and clips of a video must be at least 1, not {self}", remedy="give larger numbers"
            )

    @property
    def span(self) -> int:
        """Frames of the video from a clip's first to its last, both counted."""
        return (self.num_frames - 1) * self.stride + 1

    def starts(self, video_frames: int) -> list[int]:
        """First frames of the clips of a video; empty if it is too short."""
        pitch = self.num_frames * self.stride
        fit = max(0, (video_frames - self.span) // pitch + 1)
        count = fit if self.clips_per_video is None else min(fit, self.clips_per_video)
        spare = video_frames - ((count - 1) * pitch + self.span)
        first = spare // 2 if self.start == "middle" else 0
        return [first + number * pitch for number in range(count)]

    def to_json(self) -> dict[str, Any]:
        """For protocols."""
        return {**asdict(self), "time": "frames by number, not resampled"}


class ClipPlace(NamedTuple):
    """Where a clip lies.

    Attributes:
        name: of its video: path in the folder, without the suffix.
        path: of its video.
        start: first frame in the video.
        fps: frames of the clip per second.
        size: (H, W) of the frames, pixels.
    """

    name: str
    path: Path
    start: int
    fps: float
    size: tuple[int, int]


@dataclass(frozen=True)
class VideoClip:
    """One decoded clip.

    Attributes:
        place: where it comes from.
        frames: (F, H, W, 3) uint8 RGB.
    """

    place: ClipPlace
    frames: UInt8[np.ndarray, "F H W 3"]

    @property
    def name(self) -> str:
        """Of the video."""
        return self.place.name

    @property
    def fps(self) -> float:
        """Frames of the clip per second."""
        return self.place.fps


class VideoFolder:
    """The videos in a folder and its sub-folders, in alphabetical order.

    Args:
        root: the folder.
        protocol: which frames make a clip.

    Attributes:
        names: of all videos: path in the folder, without the suffix where that is unique.
        ignored: files that are no videos by their suffix, and hidden ones.
        skipped: (name, reason) of every video that turned out to be unreadable or too short; complete only after
            `places` and `clips` were consumed.

    Raises:
        UserError: no such folder, or no videos in it.
    """

    def __init__(self, root: str | Path, protocol: ClipProtocol) -> None:
        self.root, self.protocol = Path(root), protocol
        if not self.root.is_dir():
            raise UserError("no such folder", where=root, remedy="name a folder of videos")
        files = sorted(path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        videos = [
            path
            for path in files
            if path.suffix.lower() in VIDEO_SUFFIXES and not any(part.startswith(".") for part in path.parts)
        ]
        if not videos:
            raise UserError(
                f"no videos among {len(files)} files",
                where=root,
                remedy=f"name a folder with files of the kinds {' '.join(sorted(VIDEO_SUFFIXES))}",
            )
        stems = Counter(path.with_suffix("") for path in videos)
        names = ((path.with_suffix("") if stems[path.with_suffix("")] == 1 else path).as_posix() for path in videos)
        self._paths = {name: self.root / path for name, path in zip(names, videos, strict=True)}
        self.names = list(self._paths)
        self.ignored = len(files) - len(videos)
        self.skipped: list[tuple[str, str]] = []

    @cached_property
    def places(self) -> list[ClipPlace]:
        """All clips, found by opening every video; those that cannot be opened or are too short are skipped."""
        return [place for found in ahead(self._find, self.names) for place in self._used(found)]

    def clips(self, places: Iterable[ClipPlace] | None = None) -> Iterator[VideoClip]:
        """Decode clips ahead of their use, in order; damaged ones are skipped.

        Args:
            places: some of `self.places`; None: all.
        """
        for found in ahead(self._decode, self.places if places is None else places):
            yield from self._used(found)

    def path(self, name: str) -> Path:
        """The file of a video."""
        return self._paths[name]

    def _find(self, name: str) -> list[ClipPlace] | tuple[str, str]:
        path = self._paths[name]
        try:
            info = probe(path)
        except VideoReadError as error:
            return name, error.what
        starts = self.protocol.starts(info.num_frames)
        if not starts:
            return name, f"too short: {info.num_frames} frames, a clip spans {self.protocol.span}"
        fps = info.fps / self.protocol.stride
        return [ClipPlace(name, path, start, fps, (info.height, info.width)) for start in starts]

    def _decode(self, place: ClipPlace) -> list[VideoClip] | tuple[str, str]:
        indices = place.start + self.protocol.stride * np.arange(self.protocol.num_frames)
        try:
            return [VideoClip(place, read_frames(place.path, indices))]
        except VideoReadError as error:
            return place.name, error.what

    def _used(self, found: list[_Item] | tuple[str, str]) -> list[_Item]:
        if isinstance(found, list):
            return found
        if found not in self.skipped:
            self.skipped.append(found)
            _logger.warning("skipped %s: %s", self._paths[found[0]], found[1])
        return []


class Pairing(NamedTuple):
    """Videos of two folders by name.

    Attributes:
        names: in both, in alphabetical order.
        only_real: without a partner.
        only_fake: without a partner.
    """

    names: list[str]
    only_real: list[str]
    only_fake: list[str]


def pair(real: VideoFolder, fake: VideoFolder) -> Pairing:
    """Match videos by their names (path in the folder, without the suffix); those without a partner are reported.

    Raises:
        UserError: no name is in both folders.
    """
    in_real, in_fake = set(real.names), set(fake.names)
    names, only_real, only_fake = (
        sorted(chosen) for chosen in (in_real & in_fake, in_real - in_fake, in_fake - in_real)
    )
    if not names:
        raise UserError(
            f"no video has a partner: {only_real[0]}, ... there and {only_fake[0]}, ... here",
            where=fake.root,
            remedy="give generated videos the names of the true ones; suffixes may differ",
        )
    for folder, alone in ((real, only_real), (fake, only_fake)):
        if alone:
            _logger.warning(
                "%s: left out %d videos without a partner: %s%s",
                folder.root, len(alone), ", ".join(alone[:5]), ", ..." if len(alone) > 5 else "",
            )  # fmt: skip
    return Pairing(names, only_real, only_fake)


def ahead(work: Callable[[_Item], _Result], items: Iterable[_Item], most: int = _AHEAD) -> Iterator[_Result]:
    """Results of `work` in the order of the items, computed in threads, `most` of them at most before their use."""
    source = iter(items)
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting = deque(pool.submit(work, item) for item in islice(source, most))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(source, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
