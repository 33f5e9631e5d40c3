"""The manifest: the one contract between data tools, training and evaluation.

A manifest is a JSON Lines file. The first line is a header, `{"schema": "lisa_video.manifest", "version": 1, ...}`;
each further line is one `ClipRecord`. Paths are relative to the manifest's folder, so a data set can be moved.
Frames are never copied: a record points at frames of a video file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lisa_video.errors import UserError

SCHEMA = "lisa_video.manifest"
VERSION = 1

Split = Literal["train", "val"]


class ClipRecord(BaseModel):
    """One clip of a video with its poses: the video's frames start_frame + i * frame_stride, i < num_frames."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    clip_id: str = Field(pattern=r"^[^/\\]+$", description="unique name, of files and seed key of samples; no slashes")
    video: str = Field(min_length=1, description="video file, relative to the manifest")
    start_frame: int = Field(ge=0, description="first frame of the clip in the video")
    num_frames: int = Field(ge=1, description="frames of the clip")
    frame_stride: int = Field(default=1, ge=1, description="distance of the clip's frames in the video")
    fps: float = Field(gt=0, le=1000, description="frames per second of the video, not of the frames taken from it")
    width: int = Field(ge=1, description="of the decoded frames, pixels")
    height: int = Field(ge=1, description="of the decoded frames, pixels")
    keypoints: str = Field(min_length=1, description="keypoint file (.npz) with num_frames frames, relative")
    split: Split
    source: str = Field(min_length=1, description="the video or take that the clip came from; never in two splits")
    source_digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$", description="digest of the video file's bytes")
    attributes: dict[str, str] = Field(default_factory=dict, description="free notes, such as motion and look")

    def in_video(self, chosen: Int[np.ndarray, " F"]) -> Int[np.ndarray, " F"]:
        """Frame numbers in the video of frames of the clip, both from 0."""
        return self.start_frame + self.frame_stride * chosen

    @property
    def clip_fps(self) -> float:
        """Frames of the clip per second."""
        return self.fps / self.frame_stride


def write_manifest(path: str | Path, records: Iterable[ClipRecord], **header: Any) -> int:
    """Write a manifest, one record at a time, under a temporary name first; return the number of records.

    Args:
        path: the manifest file.
        records: consumed as a stream.
        **header: further JSON values for the header line (tool, seed, settings).
    """
    path = Path(path)
    draft = path.with_name(path.name + ".tmp")
    count = 0
    with open(draft, "w", encoding="utf-8") as file:
        file.write(json.dumps({"schema": SCHEMA, "version": VERSION, **header}) + "\n")
        for record in records:
            file.write(record.model_dump_json() + "\n")
            count += 1
    draft.replace(path)
    return count


def read_header(path: str | Path) -> dict[str, Any]:
    """Read and check the header line.

    Raises:
        UserError: no such file, not a manifest, or a manifest of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("no such manifest", where=path, remedy="run `lisa-video demo-data OUT` or name another file")
    with open(path, encoding="utf-8", errors="replace") as file:
        line = file.readline()
    try:
        header = json.loads(line)
    except json.JSONDecodeError:
        header = None
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise UserError("not a lisa_video manifest", where=path, remedy="name the manifest.jsonl of a data set")
    if header.get("version") != VERSION:
        raise UserError(
            f"manifest of version {header.get('version')!r}, this release reads version {VERSION}",
            where=path,
            remedy="build the data set again with this release",
        )
    return header


def iter_records(path: str | Path) -> Iterator[ClipRecord]:
    """Stream the records of a manifest.

    Raises:
        UserError: a line does not follow the schema.
    """
    read_header(path)
    with open(path, "rb") as file:
        next(file)
        for number, line in enumerate(file, start=2):
            yield _parse(line, f"{path}, line {number}")


class Manifest:
    """Random access to the records of one split; memory holds eight bytes a clip, not the records.

    Args:
        path: the manifest file.
        split: "train" or "val".

    Raises:
        UserError: not a manifest of this version, a broken line, or no clip in the split.
    """

    def __init__(self, path: str | Path, split: Split) -> None:
        self.path, self.split = Path(path), split
        self.header = read_header(path)
        offsets = []
        with open(path, "rb") as file:
            position = len(file.readline())
            for number, line in enumerate(file, start=2):
                if _parse(line, f"{path}, line {number}").split == split:
                    offsets.append(position)
                position += len(line)
        if not offsets:
            raise UserError(f"no clip of split {split!r}", where=path, remedy="build the data set with such clips")
        self._offsets = np.array(offsets, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> ClipRecord:
        with open(self.path, "rb") as file:
            file.seek(int(self._offsets[index]))
            return _parse(file.readline(), str(self.path))

    def resolve(self, relative: str) -> Path:
        """Absolute path of a file that a record names."""
        return self.path.parent / relative


def file_digest(path: str | Path) -> str:
    """`sha256:` and the hexadecimal digest of a file's bytes, as in `ClipRecord.source_digest`."""
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _parse(line: bytes, where: str) -> ClipRecord:
    try:
        return ClipRecord.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "line"
        raise UserError(
            f"{field}: {first['msg']}", where=where, remedy="build the manifest again with this release"
        ) from error
