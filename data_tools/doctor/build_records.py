"""What a data build has left beside its data set: the clips that it dropped and why, its accounts, its quarantine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from data_tools.accounting import Accounts
from data_tools.build import SETTINGS_NAME
from data_tools.manifest import QUARANTINE_NAME, SUMMARY_NAME
from data_tools.records import Verdict
from data_tools.settings import BuildSettings
from data_tools.sources import SourceList
from data_tools.steps import step_keys
from data_tools.store import Store, folder_name
from data_tools.survey import Quarantined, VideoState, survey
from lisa_video.config.load import load_settings
from lisa_video.data.manifest import ClipRecord
from lisa_video.errors import UserError


@dataclass(frozen=True)
class Dropped:
    """A clip that the rules were against.

    Attributes:
        record: as it would stand in the manifest; its split means nothing.
        verdict: what the rules said.
    """

    record: ClipRecord
    verdict: Verdict


@dataclass(frozen=True)
class BuildRecords:
    """What is known of the build of a data set; all empty for one that was made otherwise.

    Attributes:
        settings: of its last command; None: not a build's.
        dropped: clips with a broken rule, in order.
        judged: number of clips that were judged, kept or dropped.
        quarantined: files and clips that could not be used.
        accounts: what became of every second.
        note: why something of this cannot be shown; empty: all is there.
    """

    settings: BuildSettings | None = None
    dropped: Sequence[Dropped] = ()
    judged: int = 0
    quarantined: Sequence[Quarantined] = ()
    accounts: Accounts | None = None
    note: str = ""


def read_build(out: Path) -> BuildRecords:
    """Read what the build in a folder has left; what is not there is left empty, with a note."""
    if not (out / SETTINGS_NAME).is_file():
        return BuildRecords()
    try:
        settings = load_settings(BuildSettings, [out / SETTINGS_NAME])
        quarantined = _quarantined(out)
        accounts = _accounts(out)
    except (UserError, ValidationError, OSError) as error:
        return BuildRecords(note=f"The records of the data build cannot be read: {error}")
    try:
        root, sources = SourceList(out).load()
        states = survey(Store(out), root, sources, step_keys(settings))
        judged, dropped = 0, list[Dropped]()
        for state in states:
            judged += 0 if state.verdicts is None else len(state.verdicts.verdicts)
            dropped += _dropped(out, root, state)
    except (UserError, ValidationError, OSError) as error:
        return BuildRecords(
            settings,
            quarantined=quarantined,
            accounts=accounts,
            note=f"The clips that were dropped cannot be read: {error}",
        )
    return BuildRecords(settings, dropped, judged, quarantined, accounts)


def _quarantined(out: Path) -> list[Quarantined]:
    path = out / QUARANTINE_NAME
    if not path.is_file():
        return []
    with open(path, "rb") as file:
        return [Quarantined.model_validate_json(line) for line in file]


def _accounts(out: Path) -> Accounts | None:
    path = out / SUMMARY_NAME
    return Accounts.model_validate_json(path.read_bytes()) if path.is_file() else None


def _dropped(out: Path, root: Path, state: VideoState) -> Iterator[Dropped]:
    if state.failure is not None or state.probe is None or state.clips is None or state.poses is None:
        return
    plans = {plan.clip_id: plan for plan in state.clips.clips}
    poses = {clip.clip_id: clip for clip in state.poses.clips}
    source = state.sources[0]
    assert source.digest is not None
    videos = PurePosixPath(os.path.relpath(root.resolve(), out.resolve()))
    for verdict in () if state.verdicts is None else state.verdicts.verdicts:
        if verdict.broken:
            plan = plans[verdict.clip_id]
            record = ClipRecord(
                clip_id=verdict.clip_id,
                video=str(videos / source.path),
                start_frame=plan.start,
                num_frames=plan.num_frames,
                frame_stride=plan.stride,
                fps=plan.fps,
                width=state.probe.width,
                height=state.probe.height,
                keypoints=str(folder_name(source.digest) / poses[verdict.clip_id].keypoints),
                split="train",
                source=source.path,
                source_digest=source.digest,
            )
            yield Dropped(record, verdict)
