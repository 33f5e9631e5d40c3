"""What became of every second of video: `Accounts` add up to the length of all files that could be measured."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from data_tools.records import Record
from data_tools.rules import RULES
from data_tools.survey import VideoState

Fate = tuple[str, str]
"""(kind, detail), such as ("filtered", "jitter")."""

KINDS = {
    "quarantined": "in quarantine",
    "duplicate": "same content as another file",
    "damaged": "damaged frames",
    "short_shot": "shots below shots.min_shot_s",
    "left_over": "too short for a clip, or trimmed at a cut",
    "detection": "clip could not be decoded for the detector",
    "filtered": "filtered",
    "waiting": "not worked on yet",
    "kept": "kept",
}
"""Kind of fate -> how the table says it, in the order of the table."""


class Row(Record):
    """A line of the table.

    Attributes:
        kind: key of `KINDS`.
        detail: reason, rule or split.
        files: videos concerned.
        clips: of them; 0 where there are no clips yet.
        seconds: of video, at the average rate of each; 0 where the length is unknown.
        clips_breaking: for rules: clips that break it, whatever else they break. They count to the first rule only.
    """

    kind: str
    detail: str
    files: int
    clips: int
    seconds: float
    clips_breaking: int | None = None


class Accounts(Record):
    """What became of every second; all rows add up to `seconds`.

    Attributes:
        files: found, ignored ones not counted.
        files_of_unknown_length: those that could not be probed; they are in no sum of seconds.
        seconds: of video in all files of known length.
        quarantined: lines of the quarantine list.
        rows: what became of them.
    """

    files: int
    files_of_unknown_length: int
    seconds: float
    quarantined: int
    rows: tuple[Row, ...]


class Share(NamedTuple):
    """A part of a video with one fate."""

    fate: Fate
    frames: float
    clips: int = 0


class Ledger:
    """Adds up the states of videos; `accounts` closes it."""

    def __init__(self) -> None:
        self._seconds: defaultdict[Fate, float] = defaultdict(float)
        self._clips: Counter[Fate] = Counter()
        self._files: Counter[Fate] = Counter()
        self._breaking: Counter[str] = Counter()
        self.waiting: Counter[str] = Counter()
        """Step -> videos that it is the next step of."""
        self._kept: dict[str, tuple[float, int]] = {}
        self._num_files = self._unknown = self._quarantined = 0
        self._total = 0.0

    def add(self, state: VideoState) -> None:
        """Take one video."""
        self._num_files += len(state.sources)
        if not state.finished:
            self.waiting[state.next_step.name] += 1
        self._quarantined += sum(1 for _ in state.quarantined())
        frame_s = 0.0 if state.probe is None else state.probe.seconds / max(1, state.probe.num_frames)
        if state.probe is None:
            self._unknown += len(state.sources)
        else:
            self._total += state.probe.seconds * len(state.sources)
        for share in _shares(state):
            if share.fate == ("kept", ""):
                assert state.sources[0].digest is not None
                self._kept[state.sources[0].digest] = (share.frames * frame_s, share.clips)
            else:
                self._book(share.fate, share.frames * frame_s, share.clips, 1)
        if state.verdicts is not None:
            self._breaking.update(rule for verdict in state.verdicts.verdicts for rule in verdict.broken)
        extra = len(state.sources) - 1
        if extra:
            fate = _quarantine_fate(state) if state.failure is not None else ("duplicate", "")
            self._book(fate, extra * (state.probe.seconds if state.probe else 0.0), 0, extra)

    @property
    def num_quarantined(self) -> int:
        """Lines of the quarantine list so far."""
        return self._quarantined

    @property
    def kept_digests(self) -> list[str]:
        """Of the videos with at least one clip in the data set."""
        return list(self._kept)

    def accounts(self, splits: Mapping[str, str]) -> Accounts:
        """Close the ledger.

        Args:
            splits: digest -> split, for all of `kept_digests`.
        """
        for digest, (seconds, clips) in self._kept.items():
            self._book(("kept", splits[digest]), seconds, clips, 1)
        return Accounts(
            files=self._num_files,
            files_of_unknown_length=self._unknown,
            seconds=round(self._total, 6),
            quarantined=self._quarantined,
            rows=tuple(self._row(fate) for fate in sorted(self._files, key=self._place)),
        )

    def _book(self, fate: Fate, seconds: float, clips: int, files: int) -> None:
        self._seconds[fate] += seconds
        self._clips[fate] += clips
        self._files[fate] += files

    def _row(self, fate: Fate) -> Row:
        kind, detail = fate
        return Row(
            kind=kind,
            detail=detail,
            files=self._files[fate],
            clips=self._clips[fate],
            seconds=round(self._seconds[fate], 6),
            clips_breaking=self._breaking[detail] if kind == "filtered" else None,
        )

    @staticmethod
    def _place(fate: Fate) -> tuple[int, int, str]:
        kind, detail = fate
        rules = [rule.name for rule in RULES]
        return list(KINDS).index(kind), rules.index(detail) if kind == "filtered" else 0, detail


def _shares(state: VideoState) -> Iterator[Share]:
    """Parts of one file of this content; their frames add up to those of the probe."""
    total = state.probe.num_frames if state.probe is not None else 0
    if state.failure is not None:
        yield Share(_quarantine_fate(state), total)
        return
    if state.shots is None or state.clips is None:
        yield Share(("waiting", ""), total)
        return
    damaged = sum(span.end - span.start for span in state.shots.damaged)
    in_shots = sum(span.end - span.start for span in state.shots.shots)
    spans = {plan.clip_id: plan.num_frames * plan.stride for plan in state.clips.clips}
    yield from _if_any("damaged", damaged)
    yield from _if_any("short_shot", total - damaged - in_shots)
    yield from _if_any("left_over", in_shots - sum(spans.values()))
    yield from _clip_shares(state, spans)


def _clip_shares(state: VideoState, spans: Mapping[str, int]) -> Iterator[Share]:
    fates: dict[str, Fate] = dict.fromkeys(spans, ("waiting", ""))
    if state.poses is not None:
        fates.update((clip_id, ("detection", "")) for clip_id, _ in state.poses.failed)
    if state.verdicts is not None:
        for verdict in state.verdicts.verdicts:
            fates[verdict.clip_id] = ("filtered", next(iter(verdict.broken))) if verdict.broken else ("kept", "")
    frames: Counter[Fate] = Counter()
    for clip_id, fate in fates.items():
        frames[fate] += spans[clip_id]
    clips = Counter(fates.values())
    for fate in frames:
        yield Share(fate, frames[fate], clips[fate])


def _if_any(kind: str, frames: int) -> Iterator[Share]:
    if frames:
        yield Share((kind, ""), frames)


def _quarantine_fate(state: VideoState) -> Fate:
    """Reasons that differ in numbers or in brackets only are one."""
    assert state.failure is not None
    reason = re.sub(r"\s*\([^)]*\)", "", state.failure.what)
    return "quarantined", f"{state.failed_step}: {re.sub(r'[0-9]+(?:[.,][0-9]+)*', 'N', reason)}"
