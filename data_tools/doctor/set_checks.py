"""What is looked at on the data set as a whole: its manifest, names, repeats, and that no source is in both splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from data_tools.doctor.findings import Problem
from lisa_video.data.manifest import ClipRecord, read_header
from lisa_video.errors import UserError


class Records(NamedTuple):
    """A manifest as far as it can be read.

    Attributes:
        clips: in the order of the file.
        problems: lines that are none.
    """

    clips: list[ClipRecord]
    problems: list[Problem]


def read_records(manifest: Path) -> Records:
    """Read a manifest line by line, and go on after a broken one.

    Raises:
        UserError: there is no manifest, it is of another version, or it holds no clip.
    """
    read_header(manifest)
    clips, problems = [], []
    with open(manifest, "rb") as file:
        next(file)
        for number, line in enumerate(file, start=2):
            try:
                clips.append(ClipRecord.model_validate_json(line))
            except ValidationError as error:
                first = error.errors()[0]
                key = ".".join(str(part) for part in first["loc"]) or "line"
                problems.append(Problem("manifest", f"{key}: {first['msg']}", where=f"{manifest.name}, line {number}"))
    if not clips:
        raise UserError("the manifest holds no clip", where=manifest, remedy="build the data set first")
    return Records(clips, problems)


def check_set(clips: Sequence[ClipRecord]) -> list[Problem]:
    """Problems between clips; each is named once, at the later clip."""
    return [*_names(clips), *_repeats(clips), *_leaks(clips)]


def _names(clips: Sequence[ClipRecord]) -> list[Problem]:
    counts = Counter(clip.clip_id for clip in clips)
    return [Problem("clip_id", f"{count} clips of this name", name) for name, count in counts.items() if count > 1]


def _repeats(clips: Sequence[ClipRecord]) -> list[Problem]:
    """The same span of the same content twice; spans that overlap are a matter of taste."""
    first: dict[tuple[str, int, int, int], str] = {}
    problems = []
    for clip in clips:
        span = (clip.source_digest, clip.start_frame, clip.num_frames, clip.frame_stride)
        if span in first and first[span] != clip.clip_id:
            problems.append(Problem("repeated", f"the frames of {first[span]}", clip.clip_id, clip.video))
        first.setdefault(span, clip.clip_id)
    return problems


def _leaks(clips: Sequence[ClipRecord]) -> list[Problem]:
    """Sources in both splits, by name, and by content where the names differ."""
    by_name, by_content = defaultdict(set), defaultdict(set)
    sources = defaultdict(set)
    for clip in clips:
        by_name[clip.source].add(clip.split)
        by_content[clip.source_digest].add(clip.split)
        sources[clip.source_digest].add(clip.source)
    named = sorted(source for source, splits in by_name.items() if len(splits) > 1)
    problems = [Problem("leak", "clips of it are in train and in val", where=source) for source in named]
    for digest, splits in sorted(by_content.items()):
        if len(splits) > 1 and not sources[digest] & set(named):
            names = ", ".join(sorted(sources[digest])[:3])
            problems.append(
                Problem("leak", f"one content under several names in train and in val: {names}", where=digest)
            )
    return problems
