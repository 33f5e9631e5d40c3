"""`OUT/sources.jsonl` remembers the digest of every video file: one that looks as before is not read again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_tools.atomic import replace_text
from data_tools.video_files import SCHEMA, SOURCES_NAME, Source
from lisa_video.errors import UserError

VERSION = 1


class SourceList:
    """`OUT/sources.jsonl`: a header line that names the videos folder, then a `Source` a line, sorted by path.

    While digests are taken, lines are appended as they come; the last line of a path counts, half a line does not.

    Args:
        out: folder of the data build.
    """

    def __init__(self, out: Path) -> None:
        self._out, self._path = out, out / SOURCES_NAME

    def create(self) -> None:
        """Mark the folder as the output of a data build."""
        if self._header() is None:
            self._write({"videos": None, "complete": False}, ())

    def load(self) -> tuple[Path, list[Source]]:
        """The videos folder, and all its files sorted by path.

        Raises:
            UserError: it was not listed yet, or not to the end.
        """
        header = self._header()
        if header is None or not header["complete"]:
            raise UserError(
                "the videos were not listed yet, or not to the end",
                where=self._out,
                remedy="run `lisa-video data probe VIDEOS_DIR OUT` first",
            )
        return Path(os.path.normpath(self._out.resolve() / header["videos"])), self._read()

    def update(
        self,
        root: Path,
        found: Sequence[Source],
        take_digests: Callable[[list[Source]], Iterable[Source]],
        *,
        retry: bool = False,
    ) -> list[str]:
        """Bring the file up to date.

        Args:
            root: the videos folder.
            found: its files, from `find_files`.
            take_digests: is given the files that are new or changed, and yields them with their digests as they come.
            retry: try again those that could not be read before.

        Returns:
            Paths that were listed before and are gone.
        """
        videos = os.path.relpath(root.resolve(), self._out.resolve())
        same_folder = (self._header() or {}).get("videos") == videos
        before = {source.path: source for source in self._read()} if same_folder else {}
        now = {source.path: _remembered(source, before.get(source.path), retry) for source in found}
        new = [source for source in now.values() if source.digest is None and source.problem is None]
        if new:
            self._write(
                {"videos": videos, "complete": False},
                (source for source in now.values() if source.digest or source.problem),
            )
            with open(self._path, "a", encoding="utf-8") as file:
                for source in take_digests(new):
                    now[source.path] = source
                    file.write(_line(source))
                    file.flush()
        self._write({"videos": videos, "complete": True}, (now[path] for path in sorted(now)))
        return sorted(before.keys() - now.keys())

    def _header(self) -> dict[str, Any] | None:
        try:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                header = json.loads(file.readline())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        if not isinstance(header, dict) or (header.get("schema"), header.get("version")) != (SCHEMA, VERSION):
            raise UserError(
                "not a source list of this release", where=self._path, remedy="name another output folder, or delete it"
            )
        return header

    def _read(self) -> list[Source]:
        if self._header() is None:
            return []
        sources = {}
        with open(self._path, "rb") as file:
            next(file)
            for line in file:
                try:
                    source = Source.model_validate_json(line)
                except ValidationError:
                    continue  # cut off when a run was killed: the file is read again
                sources[source.path] = source
        return [sources[path] for path in sorted(sources)]

    def _write(self, state: dict[str, Any], sources: Iterable[Source]) -> None:
        header = json.dumps({"schema": SCHEMA, "version": VERSION, **state}) + "\n"
        replace_text(self._path, chain([header], map(_line, sources)))


def _remembered(found: Source, before: Source | None, retry: bool) -> Source:
    """What is known of a file that looks as it did before; else the file as found."""
    if found.problem is not None or before is None:
        return found
    if (found.size, found.mtime_ns) != (before.size, before.mtime_ns):
        return found
    still_unreadable = before.problem is not None and found.ctime_ns == before.ctime_ns and not retry
    return before if before.digest is not None or still_unreadable else found


def _line(source: Source) -> str:
    return source.model_dump_json(exclude_defaults=True) + "\n"
