"""Which files the videos folder holds, and what their bytes are."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from data_tools.records import Record
from lisa_video.data.manifest import file_digest
from lisa_video.errors import UserError

SOURCES_NAME = "sources.jsonl"
"""Marks a folder as the output of a data build, see `data_tools/sources.py`."""
SCHEMA = "lisa_video.sources"


class Problem(Record):
    """Why a file cannot be used, and what to do about it."""

    what: str
    remedy: str


class Source(Record):
    """A file of the videos folder.

    Attributes:
        path: relative to the videos folder.
        size: bytes.
        mtime_ns: time of the last change.
        ctime_ns: time of the last change of its permissions or place, for files that could not be read.
        digest: `sha256:...` of its bytes; null: it could not be read.
        problem: why not.
    """

    path: str
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    digest: str | None = None
    problem: Problem | None = None


class Listing(NamedTuple):
    """What the walk found.

    Attributes:
        files: sorted by path; those with a problem carry it, none has a digest yet.
        ignored: number of files and folders that match a pattern of `sources.ignore`.
        outputs: folders that are the output of a data build, and were passed over.
    """

    files: list[Source]
    ignored: int
    outputs: list[str]


def find_files(root: Path, ignore: Sequence[str]) -> Listing:
    """List all files below a folder; links are followed, each folder is read once.

    Raises:
        UserError: no such folder, or it is the output of a data build itself.
    """
    if not root.is_dir():
        raise UserError("no such folder of videos", where=root, remedy="name the folder that holds the videos")
    if _is_output(root):
        raise UserError("this is the output of a data build", where=root, remedy="name the folder of the videos")
    files: list[Source] = []
    outputs: list[str] = []
    ignored = 0
    seen: set[tuple[int, int]] = set()
    # Real folders first, so that a file is listed under its own path and not under that of a link.
    folders, links = deque([""]), deque[str]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        try:
            identity = os.stat(root / folder)
            if (identity.st_dev, identity.st_ino) in seen:
                if _is_loop(root / folder):
                    files.append(_unusable(folder, "a link back to a folder above it", "remove the link"))
                continue
            seen.add((identity.st_dev, identity.st_ino))
            with os.scandir(root / folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            files.append(_unusable(folder, f"the folder cannot be read ({error.strerror})", "correct its permissions"))
            continue
        if any(entry.name == SOURCES_NAME for entry in found) and _is_output(root / folder):
            outputs.append(folder)
            continue
        for entry in found:
            path = os.path.join(folder, entry.name)
            if any(fnmatch(entry.name, pattern) for pattern in ignore):
                ignored += 1
            elif entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_symlink() and os.path.isdir(root / path):
                links.append(path)
            else:
                files.append(_look_at(entry, path))
    return Listing(sorted(files, key=lambda source: source.path), ignored, outputs)


def _is_output(folder: Path) -> bool:
    try:
        with open(folder / SOURCES_NAME, encoding="utf-8", errors="replace") as file:
            return file.readline(1000).startswith(f'{{"schema": "{SCHEMA}"')
    except OSError:
        return False


def _is_loop(link: Path) -> bool:
    target, place = os.path.realpath(link), os.path.realpath(link.parent)
    return os.path.commonpath([target, place]) == target


def _look_at(entry: os.DirEntry[str], path: str) -> Source:
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        return _unusable(shown, "the name is not valid Unicode", "rename the file")
    try:
        found = entry.stat()
    except FileNotFoundError:
        return _unusable(path, "a link to a file that does not exist", "remove or mend the link")
    except OSError as error:
        return _unusable(path, f"the file cannot be looked at ({error.strerror})", "remove or mend it")
    if not stat.S_ISREG(found.st_mode):
        return _unusable(path, "not a regular file", "remove it")
    return Source(path=path, size=found.st_size, mtime_ns=found.st_mtime_ns, ctime_ns=found.st_ctime_ns)


def _unusable(path: str, what: str, remedy: str) -> Source:
    return Source(path=path or ".", problem=Problem(what=what, remedy=remedy))


def digest_source(root: Path, source: Source) -> Source:
    """The same source with its digest, or with the reason why it cannot be read."""
    path = root / source.path
    try:
        digest = file_digest(path)
        after = path.stat()
    except OSError as error:
        problem = Problem(
            what=f"the file cannot be read ({error.strerror})",
            remedy="correct its permissions, or copy it again, and run the same command",
        )
        return source.model_copy(update={"problem": problem})
    if (after.st_size, after.st_mtime_ns) != (source.size, source.mtime_ns):
        problem = Problem(what="the file changed while it was read", remedy="run again once it is complete")
        return source.model_copy(update={"problem": problem})
    return source.model_copy(update={"digest": digest, "ctime_ns": 0})


def is_unchanged(root: Path, source: Source) -> bool:
    """Whether the file is there and looks as it did when its digest was taken."""
    try:
        found = (root / source.path).stat()
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns) == (source.size, source.mtime_ns)
