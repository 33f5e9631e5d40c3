"""The results of a data build on disk: one folder for each distinct video content, one small JSON file a step.

A file counts only while its key is the one that is asked for; everything else is as if it were not there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from data_tools.records import Record

SomeRecord = TypeVar("SomeRecord", bound=Record)

VIDEOS_FOLDER = "videos"
"""Of a build: a folder for each video content."""


class Failure(Record):
    """Why a step could not be done for a video.

    Attributes:
        what: the reason.
        remedy: what to do about it.
        limits: the limits that were too tight (name -> value); with others the step is tried again.
    """

    what: str
    remedy: str
    limits: dict[str, float | None] | None = None


class VideoFolder:
    """Results for one video content.

    Args:
        path: its folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, step: str, key: str, schema: type[SomeRecord]) -> SomeRecord | Failure | None:
        """The record of a step, why there is none, or None if the step was not done under this key."""
        envelope = self.read(step, key)
        if envelope is None:
            return None
        if "failed" in envelope:
            return Failure.model_validate(envelope["failed"])
        return schema.model_validate(envelope["result"])

    def read(self, step: str, key: str) -> dict[str, Any] | None:
        """The step's file as it stands, if it was written under this key."""
        try:
            envelope = json.loads(self._file(step).read_bytes())
        except (FileNotFoundError, ValueError):  # never written, or cut off by a crash of the machine
            return None
        return envelope if isinstance(envelope, dict) and envelope.get("key") == key else None

    def write(self, step: str, key: str, seconds: float, outcome: Record) -> None:
        """Keep a record or a `Failure`, under a temporary name first."""
        self.path.mkdir(parents=True, exist_ok=True)
        kind = "failed" if isinstance(outcome, Failure) else "result"
        envelope = {"step": step, "key": key, "seconds": round(seconds, 3), kind: outcome.model_dump(mode="json")}
        draft = self._file(step).with_suffix(".json.tmp")
        draft.write_text(json.dumps(envelope), encoding="utf-8")
        draft.replace(self._file(step))

    def forget(self, step: str) -> None:
        """Remove the record of a step, if there is one."""
        self._file(step).unlink(missing_ok=True)

    def _file(self, step: str) -> Path:
        return self.path / f"{step}.json"


class Store:
    """Folder of a data build.

    Args:
        out: the folder; must exist.
    """

    def __init__(self, out: Path) -> None:
        self.out = out

    def video(self, digest: str) -> VideoFolder:
        """Results for the video with this digest (`sha256:...`)."""
        return VideoFolder(self.out / folder_name(digest))


def folder_name(digest: str) -> PurePosixPath:
    """Where the results for a video content stand, relative to the folder of the build."""
    name = digest.removeprefix("sha256:")
    return PurePosixPath(VIDEOS_FOLDER, name[:2], name)


def is_settled(envelope: Mapping[str, Any] | None, limits: Mapping[str, float | None], *, retry: bool) -> bool:
    """Whether a step need not run: it was done, or it failed and nothing has changed since.

    Args:
        envelope: from `VideoFolder.read`.
        limits: that hold now.
        retry: take failures, also those of single clips, as not done.
    """
    if envelope is None:
        return False
    failed = envelope.get("failed")
    if failed is None:
        return not (retry and envelope["result"].get("failed"))
    return not retry and (failed["limits"] is None or failed["limits"] == limits_named(limits, failed["limits"]))


def limits_named(limits: Mapping[str, float | None], names: Mapping[str, Any]) -> dict[str, float | None]:
    """Those limits only."""
    return {name: limits.get(name) for name in names}
