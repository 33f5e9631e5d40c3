"""The step `manifest`: clips that were kept become the data set, and every file and second is accounted for."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path, PurePosixPath

from data_tools.accounting import Accounts, Ledger
from data_tools.atomic import replace_if_different, replace_text
from data_tools.settings import ManifestSettings
from data_tools.splits import assign_splits
from data_tools.steps import STEPS, Keys, not_done
from data_tools.store import folder_name
from data_tools.survey import Quarantined, VideoState
from lisa_video.data.manifest import ClipRecord, Split, write_manifest

MANIFEST_NAME = "manifest.jsonl"
QUARANTINE_NAME = "quarantine.jsonl"
SUMMARY_NAME = "summary.json"
TOOL = "lisa-video data build"

States = Callable[[], Iterable[VideoState]]
"""Reads the states of all videos anew: they are too many to keep."""


def write_data_set(out: Path, root: Path, states: States, settings: ManifestSettings, keys: Keys) -> Accounts:
    """Write manifest, quarantine list and summary; files that would stay the same are not touched.

    Args:
        out: folder of the build.
        root: folder of the videos.
        states: see `survey`.
        settings: how to split.
        keys: of all steps.

    Returns:
        What became of every second.

    Raises:
        UserError: a step is missing for some video.
    """
    ledger = _settle(out, states)
    for step in STEPS:
        if missing := ledger.waiting[step.name]:
            raise not_done(step, missing, out)
    splits = assign_splits(out, ledger.kept_digests, settings)
    accounts = ledger.accounts(splits)
    clips = {row.detail: row.clips for row in accounts.rows if row.kind == "kept"}
    draft = out / f"{MANIFEST_NAME}.new"
    write_manifest(
        draft,
        _clip_records(out, root, states, splits),
        tool=TOOL,
        tool_version=version("lisa-video"),
        settings=_settings_digest(settings, keys),
        clips=dict(sorted(clips.items())),
        sources=dict(sorted(Counter(splits.values()).items())),
    )
    replace_if_different(out / MANIFEST_NAME, draft)
    replace_text(out / SUMMARY_NAME, [accounts.model_dump_json(indent=1) + "\n"])
    return accounts


def write_quarantine(out: Path, states: States) -> int:
    """Write the quarantine list alone; returns the number of its lines."""
    return _settle(out, states).num_quarantined


def _settle(out: Path, states: States) -> Ledger:
    """Add up all videos, and write the quarantine list on the way."""
    ledger, quarantined = Ledger(), list[Quarantined]()
    for state in states():
        ledger.add(state)
        quarantined.extend(state.quarantined())
    quarantined.sort(key=lambda line: (line.path, line.clip_id or ""))
    replace_text(out / QUARANTINE_NAME, (line.model_dump_json(exclude_none=True) + "\n" for line in quarantined))
    return ledger


def _clip_records(out: Path, root: Path, states: States, splits: Mapping[str, Split]) -> Iterator[ClipRecord]:
    videos = PurePosixPath(os.path.relpath(root.resolve(), out.resolve()))
    for state in states():
        source = state.sources[0]
        for clip in state.kept():
            assert source.digest is not None and state.probe is not None and state.poses is not None
            attributes = {"detector": state.poses.detector}
            if clip.verdict.reference_track is not None:
                attributes["reference_track"] = str(clip.verdict.reference_track)
            yield ClipRecord(
                clip_id=clip.plan.clip_id,
                video=str(videos / source.path),
                start_frame=clip.plan.start,
                num_frames=clip.plan.num_frames,
                frame_stride=clip.plan.stride,
                fps=clip.plan.fps,
                width=state.probe.width,
                height=state.probe.height,
                keypoints=str(folder_name(source.digest) / clip.poses.keypoints),
                split=splits[source.digest],
                source=source.path,
                source_digest=source.digest,
                attributes=attributes,
            )


def _settings_digest(settings: ManifestSettings, keys: Keys) -> str:
    """Of everything that decides what the data set holds, besides the videos."""
    parts = [keys[STEPS[-1].name], settings.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
