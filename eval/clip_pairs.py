"""Generated videos with their real ones: which frames are compared, at what size, and what could not be used.

Unlike the Fréchet distances, these comparisons need no clips of equal length: each pair is compared over the first
frames that both have. Frames are paired by number, never by time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from eval.videos import ClipProtocol, VideoFolder, pair
from lisa_video.data.geometry import Geometry
from lisa_video.data.video_io import VideoInfo, VideoReadError, iter_frames, probe
from lisa_video.errors import UserError

RESIZE = "real frames scaled to cover the generated size (area or bicubic), centre crop"
_CHUNK = 32
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipPair:
    """A generated video and, where there is one, its real one.

    Attributes:
        name: of both: path in the folder, without the suffix.
        generated: the file.
        real: the file.
        num_frames: frames that are compared.
        stride: distance of these frames in the videos.
        fps: compared frames per second of the generated video.
        size: (H, W) of the generated frames, pixels.
        real_size: (H, W) of the real frames as they are in the file; as `size` without a real video.
    """

    name: str
    generated: Path
    real: Path | None
    num_frames: int
    stride: int
    fps: float
    size: tuple[int, int]
    real_size: tuple[int, int]

    @property
    def geometry(self) -> Geometry:
        """From real to generated pixels."""
        return Geometry(self.real_size, self.size, mirror=False)

    @property
    def indices(self) -> np.ndarray:
        """(F,) numbers of the frames that are compared."""
        return np.arange(self.num_frames) * self.stride

    def generated_frames(self, chunk: int = _CHUNK) -> Iterator[UInt8[np.ndarray, "f H W 3"]]:
        """The generated frames in pieces.

        Raises:
            VideoReadError: the file is damaged.
        """
        yield from iter_frames(self.generated, self.indices, chunk)

    def real_frames(self, chunk: int = _CHUNK) -> Iterator[UInt8[np.ndarray, "f H W 3"]]:
        """The real frames in pieces, at the size of the generated ones.

        Raises:
            VideoReadError: the file is damaged.
        """
        assert self.real is not None
        for frames in iter_frames(self.real, self.indices, chunk):
            yield self.geometry.apply_frames(frames)


@dataclass
class ClipPairs:
    """The pairs of two folders.

    Attributes:
        pairs: in alphabetical order.
        skipped: (name, reason) of videos that cannot be used.
        notes: what a reader of the numbers has to know, as sentences.
    """

    pairs: list[ClipPair]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Add a note and log it."""
        self.notes.append(sentence)
        _logger.warning("%s", sentence)

    def skip(self, name: str, reason: str) -> None:
        """Leave out a clip, visibly."""
        self.skipped.append((name, reason))
        _logger.warning("skipped %s: %s", name, reason)

    @property
    def protocol(self) -> dict[str, Any]:
        """Which frames were compared."""
        lengths = [one.num_frames for one in self.pairs]
        return {
            "frames": f"{min(lengths)} to {max(lengths)} a clip: the first that both have, by number",
            "frames_together": sum(lengths),
            "stride": self.pairs[0].stride,
            "fps": sorted({round(one.fps, 3) for one in self.pairs}),
            "sizes": sorted({f"{one.size[1]} x {one.size[0]}" for one in self.pairs}),
        }


def find_pairs(
    generated_dir: str | Path, real_dir: str | Path | None = None, *, max_frames: int | None = None, stride: int = 1
) -> ClipPairs:
    """Open all videos of a folder, and those of the same names in another.

    Args:
        generated_dir: generated videos.
        real_dir: real videos; None: there are none.
        max_frames: compare so many frames at most.
        stride: take every so many-th frame.

    Raises:
        UserError: no such folder, no videos, no common name, or none that can be read.
    """
    protocol = ClipProtocol(num_frames=1)
    generated = VideoFolder(generated_dir, protocol)
    real = VideoFolder(real_dir, protocol) if real_dir is not None else None
    found = ClipPairs([])
    names = generated.names
    if real is not None:
        if Path(generated_dir).resolve() == Path(real_dir or "").resolve():
            found.note("both folders are the same: every clip is compared with itself")
        pairing = pair(real, generated)
        names = pairing.names
        for side, alone in (("real", pairing.only_real), ("generated", pairing.only_fake)):
            if alone:
                found.notes.append(f"{len(alone)} {side} videos have no partner and were left out")
    infos: list[tuple[VideoInfo, VideoInfo]] = []
    for name in names:
        paths = [folder.path(name) for folder in (generated, real) if folder is not None]
        try:
            own, *others = (probe(path) for path in paths)
        except VideoReadError as error:
            found.skip(name, str(error))
            continue
        other = others[0] if others else own
        taken = (min(own.num_frames, other.num_frames) - 1) // stride + 1
        infos.append((own, other))
        found.pairs.append(
            ClipPair(
                name, paths[0], paths[1] if others else None, min(taken, max_frames or taken), stride, own.fps / stride,
                (own.height, own.width), (other.height, other.width),
            )
        )  # fmt: skip
    if not found.pairs:
        raise UserError(
            f"none of {len(names)} videos can be read", where=generated_dir, remedy="see the warnings for each"
        )
    _note_differences(found, infos)
    return found


def _note_differences(found: ClipPairs, infos: list[tuple[VideoInfo, VideoInfo]]) -> None:
    sizes = sum((a.width, a.height) != (b.width, b.height) for a, b in infos)
    crops = sum(one.geometry.resized_size != one.size for one in found.pairs)
    lengths = sum(a.num_frames != b.num_frames for a, b in infos)
    rates = sum(abs(a.fps - b.fps) > 0.01 * b.fps for a, b in infos)
    if sizes:
        cropped = f"; {crops} of them lose their edges, because the aspect differs" if crops else ""
        found.note(f"{sizes} pairs differ in size: {RESIZE}{cropped}")
    if lengths:
        found.note(f"{lengths} pairs differ in length: the first frames that both have are compared")
    if rates:
        found.note(f"{rates} pairs differ in frames per second: frames are compared by number, not by time")
