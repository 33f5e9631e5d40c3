"""How far each video of a data build has come: read back from the records, one video in memory at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from data_tools.records import ClipPlan, ClipPoses, Clips, Poses, Probe, Record, Shots, Span, Verdict, Verdicts
from data_tools.steps import STEPS, Keys, Step
from data_tools.store import Failure, Store, VideoFolder
from data_tools.video_files import Source, is_unchanged

LISTING = "listing"
"""The step before all others: looking at the files and taking their digests."""

_SHOWN = 3  # spans that are named in a reason

_CHANGED = Failure(
    what="the file is gone, or was changed after it was listed", remedy="run `lisa-video data build` again"
)


class Quarantined(Record):
    """A line of `OUT/quarantine.jsonl`: a file, or a part of one, that could not be used.

    Attributes:
        path: of the file, relative to the videos folder.
        step: that could not be done.
        reason: why.
        remedy: what to do about it.
        clip_id: of the clip, if only that is lost.
    """

    path: str
    step: str
    reason: str
    remedy: str
    clip_id: str | None = None


class KeptClip(NamedTuple):
    """A clip that no rule is against."""

    plan: ClipPlan
    poses: ClipPoses
    verdict: Verdict


@dataclass(frozen=True)
class VideoState:
    """One video content, with the records of the steps that are done.

    Attributes:
        sources: the files that hold it, sorted by path; the first is worked on. At least one.
        folder: its results; None: not even its digest is known.
        failure: why the next step cannot be done.
        failed_step: name of that step.
        probe: see `STEPS`, like those that follow.
    """

    sources: tuple[Source, ...]
    folder: VideoFolder | None
    failure: Failure | None = None
    failed_step: str = ""
    probe: Probe | None = None
    shots: Shots | None = None
    clips: Clips | None = None
    poses: Poses | None = None
    verdicts: Verdicts | None = None

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do: judged, or given up."""
        return self.failure is not None or self.verdicts is not None

    @property
    def next_step(self) -> Step:
        """The first step that is not done."""
        return next(step for step in STEPS if getattr(self, step.name) is None)

    def kept(self) -> Iterator[KeptClip]:
        """The clips that belong into the data set, in order."""
        if self.clips is None or self.poses is None or self.verdicts is None:
            return
        plans = {plan.clip_id: plan for plan in self.clips.clips}
        poses = {clip.clip_id: clip for clip in self.poses.clips}
        for verdict in self.verdicts.verdicts:
            if not verdict.broken:
                yield KeptClip(plans[verdict.clip_id], poses[verdict.clip_id], verdict)

    def quarantined(self) -> Iterator[Quarantined]:
        """What of this video could not be used: each of its files, its damaged frames, or single clips."""
        if self.failure is not None:
            for source in self.sources:
                yield Quarantined(
                    path=source.path, step=self.failed_step, reason=self.failure.what, remedy=self.failure.remedy
                )
            return
        if self.shots is not None and self.shots.damaged:
            yield Quarantined(
                path=self.sources[0].path,
                step="shots",
                reason=f"damaged: {_listed(self.shots.damaged)}; the rest is used",
                remedy="replace the file by an undamaged copy, or leave it: nothing damaged is used",
            )
        if self.poses is not None:
            for clip_id, reason in self.poses.failed:
                yield Quarantined(
                    path=self.sources[0].path,
                    step="poses",
                    reason=reason,
                    remedy="mend or replace the file; --retry tries the clip again",
                    clip_id=clip_id,
                )


def _listed(spans: Sequence[Span]) -> str:
    """Frame numbers, such as "frames 20 to 29 (10 frames)"; the first few spans are named."""
    total = sum(span.end - span.start for span in spans)
    named = ", ".join(f"{span.start} to {span.end - 1}" for span in spans[:_SHOWN])
    return f"frames {named}{', ...' if len(spans) > _SHOWN else ''} ({total} frames)"


def by_content(sources: Sequence[Source]) -> dict[str, tuple[Source, ...]]:
    """Digest -> files with this content, in order of the first path."""
    groups: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        if source.digest is not None:
            groups[source.digest].append(source)
    return {digest: tuple(group) for digest, group in groups.items()}


def survey(store: Store, root: Path, sources: Sequence[Source], keys: Keys) -> Iterator[VideoState]:
    """The state of every video: first those that could not even be read, then the others in order of their paths.

    Args:
        store: of the build.
        root: folder of the videos.
        sources: from `OUT/sources.jsonl`, sorted by path.
        keys: of all steps, under the settings at hand.
    """
    for source in sources:
        if source.problem is not None:
            failure = Failure(what=source.problem.what, remedy=source.problem.remedy)
            yield VideoState((source,), None, failure, LISTING)
    for digest, group in by_content(sources).items():
        yield _state(root, group, store.video(digest), keys)


def _state(root: Path, group: tuple[Source, ...], folder: VideoFolder, keys: Keys) -> VideoState:
    present = tuple(source for source in group if is_unchanged(root, source))
    if not present:
        return VideoState(group, folder, _CHANGED, LISTING)
    records: dict[str, Any] = {}
    for step in STEPS:
        record = folder.load(step.name, keys[step.name], step.schema)
        if isinstance(record, Failure):
            return VideoState(present, folder, record, step.name, **records)
        if record is None:
            break
        records[step.name] = record
    return VideoState(present, folder, **records)
