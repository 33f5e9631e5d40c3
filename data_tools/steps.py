"""The steps of a data build that work on one video each: what they are called, what they depend on, what they run.

A step is a function of the video file, the records of the steps before it, and a part of the settings. Its key is
the digest of all that decides its result but the video itself; the steps before count through their key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from data_tools.records import Clips, Poses, Probe, Record, Shots, Verdicts
from data_tools.settings import BuildSettings
from data_tools.store import SomeRecord, VideoFolder
from lisa_video.errors import UserError

Keys = dict[str, str]
"""Name of a step -> key under the settings at hand."""

MEMORY_LIMIT = "engine.memory_mib"


@dataclass(frozen=True)
class Video:
    """One video while steps work on it; records of earlier steps are read when they are asked for.

    Attributes:
        path: of the file.
        digest: `sha256:...` of its bytes.
        folder: its results.
        keys: of all steps.
    """

    path: Path
    digest: str
    folder: VideoFolder
    keys: Keys

    @cached_property
    def probe(self) -> Probe:
        """Record of the step `probe`."""
        return self._record("probe", Probe)

    @cached_property
    def shots(self) -> Shots:
        """Record of the step `shots`."""
        return self._record("shots", Shots)

    @cached_property
    def clips(self) -> Clips:
        """Record of the step `clips`."""
        return self._record("clips", Clips)

    @cached_property
    def poses(self) -> Poses:
        """Record of the step `poses`."""
        return self._record("poses", Poses)

    def _record(self, step: str, schema: type[SomeRecord]) -> SomeRecord:
        record = self.folder.load(step, self.keys[step], schema)
        assert isinstance(record, schema), f"step {step} of {self.folder.path} is not done: {record}"
        return record


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: of the step, and of its record's file.
        version: raised whenever a change of the code changes results.
        command: `lisa-video data COMMAND` runs it.
        schema: of its record.
        depends_on: the part of the settings that decides the result, as JSON values.
        run: does it.
        time_limit: key of the setting that says how many seconds one video may take.
    """

    name: str
    version: int
    command: str
    schema: type[Record]
    depends_on: Callable[[BuildSettings], Any]
    run: Callable[[Video, BuildSettings], Record]
    time_limit: str

    def seconds(self, settings: BuildSettings) -> float:
        """Time limit for one video."""
        section, _, key = self.time_limit.partition(".")
        return float(getattr(getattr(settings, section), key))

    def limits(self, settings: BuildSettings) -> dict[str, float | None]:
        """Setting -> value, for the limits that can stop the step but have no part in its result."""
        return {self.time_limit: self.seconds(settings), MEMORY_LIMIT: settings.engine.memory_mib}


def _probe(video: Video, settings: BuildSettings) -> Probe:
    from data_tools.probing import probe_video

    return probe_video(video.path, settings.probe)


def _shots(video: Video, settings: BuildSettings) -> Shots:
    from data_tools.shots import find_shots

    return find_shots(video.path, video.probe, settings.shots)


def _clips(video: Video, settings: BuildSettings) -> Clips:
    from data_tools.clips import plan_clips

    return plan_clips(video.path, video.probe, video.shots, settings.clips)


def _poses(video: Video, settings: BuildSettings) -> Poses:
    from data_tools.poses import find_poses

    return find_poses(video.path, video.probe, video.clips, video.folder.path, settings.poses)


def _verdicts(video: Video, settings: BuildSettings) -> Verdicts:
    from data_tools.filters import judge
    from data_tools.poses import read_poses

    plans = {plan.clip_id: plan for plan in video.clips.clips}
    verdicts = []
    for clip in video.poses.clips:
        keypoints, measures = read_poses(video.folder.path, clip)
        verdicts.append(judge(plans[clip.clip_id], video.probe, keypoints, measures, settings.filters))
    return Verdicts(verdicts=tuple(verdicts))


def _without(section: BaseModel, *names: str) -> dict[str, Any]:
    return section.model_dump(mode="json", exclude=set(names))


def _pose_dependencies(settings: BuildSettings) -> Any:
    from data_tools.poses import dependencies

    return dependencies(settings.poses)


STEPS = (
    Step("probe", 1, "probe", Probe, lambda s: _without(s.probe, "timeout_s"), _probe, "probe.timeout_s"),
    Step("shots", 1, "shots", Shots, lambda s: _without(s.shots, "timeout_s"), _shots, "shots.timeout_s"),
    Step("clips", 2, "shots", Clips, lambda s: _without(s.clips), _clips, "shots.timeout_s"),
    Step("poses", 1, "poses", Poses, _pose_dependencies, _poses, "poses.timeout_s"),
    Step("verdicts", 1, "filter", Verdicts, lambda s: _without(s.filters), _verdicts, "poses.timeout_s"),
)
"""All steps, in order: each needs those before it."""


def step_keys(settings: BuildSettings) -> Keys:
    """Keys of all steps under these settings."""
    keys: Keys = {}
    before = ""
    for step in STEPS:
        parts = [step.name, step.version, step.depends_on(settings), before]
        before = keys[step.name] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return keys


def not_done(step: Step, missing: int, out: Path) -> UserError:
    """The error of a command that needs a step which some videos were not through."""
    arguments = "VIDEOS_DIR OUT" if step is STEPS[0] else "OUT"
    return UserError(
        f"{missing} videos were not through step {step.name} with these settings",
        where=out,
        remedy=f"run `lisa-video data {step.command} {arguments}` first, or `lisa-video data build`",
    )
