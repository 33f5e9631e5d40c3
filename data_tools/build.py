"""`lisa-video data build`: lists the videos, runs the steps on those that need them, and writes the data set.

State is in the output folder alone, so the same command goes on after a kill, and does nothing if nothing has
changed.
"""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from data_tools.accounting import Accounts
from data_tools.atomic import replace_text
from data_tools.engine.base import Engine, Lost
from data_tools.engine.choose import open_engine
from data_tools.manifest import write_data_set, write_quarantine
from data_tools.settings import BuildSettings
from data_tools.sources import SourceList
from data_tools.steps import STEPS, Step, not_done, step_keys
from data_tools.store import VIDEOS_FOLDER, Store, is_settled
from data_tools.survey import VideoState, by_content, survey
from data_tools.video_files import Source, find_files, is_unchanged
from data_tools.work import Job, hash_seconds, keep_lost, run_step, system_error, take_digest, unread
from lisa_video.config.load import dump_config
from lisa_video.errors import UserError

SETTINGS_NAME = "settings.yaml"
BUILD, MANIFEST = "build", "manifest"
"""Commands beside those that are named in `STEPS`."""

_SHOWN = 10  # names that are listed in a message; more are counted
_Item = TypeVar("_Item")


@dataclass
class Done:
    """What a command did.

    Attributes:
        tasks: step -> files or videos that it was run on just now.
        ignored: files and folders that match a pattern of `sources.ignore`.
        gone: files that were listed before and are not there any more.
        quarantined: lines of the quarantine list.
        accounts: what became of every second; None: the command did not come to the data set.
    """

    tasks: dict[str, int] = field(default_factory=dict)
    ignored: int = 0
    gone: list[str] = field(default_factory=list)
    quarantined: int = 0
    accounts: Accounts | None = None

    def to_json(self) -> str:
        """For programs."""
        accounts = None if self.accounts is None else self.accounts.model_dump(mode="json")
        return json.dumps({**vars(self), "accounts": accounts}, indent=1)


def run_command(
    command: str,
    out: Path,
    settings: BuildSettings,
    *,
    videos: Path | None = None,
    retry: bool = False,
    progress: bool = True,
) -> Done:
    """Run one command of `lisa-video data`.

    Args:
        command: "build" for everything, "manifest", or a command of `STEPS`.
        out: folder of the build; made if need be.
        settings: all of them.
        videos: folder of the videos, for the commands that list them ("build" and "probe").
        retry: try again what failed before.
        progress: show progress bars.

    Raises:
        UserError: a step before was not run, the machine or the settings do not allow the work, or another process
            is at work in the folder.
    """
    try:
        if videos is not None:
            _check_folders(videos, out)
            out.mkdir(parents=True, exist_ok=True)
        with _only_one(out), open_engine(settings.engine) as engine:
            build = _Build(out, settings, engine, retry=retry, progress=progress)
            return build.run(command, videos)
    except OSError as error:
        raise system_error(error, out) from error


class _Build:
    """A command at work."""

    def __init__(self, out: Path, settings: BuildSettings, engine: Engine, *, retry: bool, progress: bool) -> None:
        self._out, self._settings, self._engine, self._retry, self._progress = out, settings, engine, retry, progress
        self._store, self._source_list, self._keys = Store(out), SourceList(out), step_keys(settings)
        self._done = Done()

    def run(self, command: str, videos: Path | None) -> Done:
        if videos is not None:
            self._list(videos)
        root, sources = self._source_list.load()
        replace_text(self._out / SETTINGS_NAME, [dump_config(self._settings)])
        for step in STEPS:
            if command in (BUILD, step.command):
                self._run_step(step, root, sources)

        def states() -> Iterable[VideoState]:
            return survey(self._store, root, sources, self._keys)

        if command in (BUILD, MANIFEST):
            accounts = write_data_set(self._out, root, states, self._settings.manifest, self._keys)
            self._done.accounts, self._done.quarantined = accounts, accounts.quarantined
        else:
            self._done.quarantined = write_quarantine(self._out, states)
        return self._done

    def _list(self, videos: Path) -> None:
        """Bring `OUT/sources.jsonl` up to date."""
        self._source_list.create()
        listing = find_files(videos, self._settings.sources.ignore)
        if not listing.files:
            raise UserError("the folder holds no files", where=videos, remedy="name the folder that holds the videos")

        def digests(new: list[Source]) -> Iterator[Source]:
            self._done.tasks["listing"] = len(new)
            results = self._engine.run(partial(take_digest, videos), new, hash_seconds)
            for source, result in self._bar(results, "listing", len(new)):
                yield unread(source, result) if isinstance(result, Lost) else result

        self._done.tasks["listing"] = 0
        self._done.gone = self._source_list.update(videos, listing.files, digests, retry=self._retry)
        self._done.ignored = listing.ignored
        for path in self._done.gone[:_SHOWN]:
            self._say(f"{path!r} is gone: it is left out of the data set")
        if len(self._done.gone) > _SHOWN:
            self._say(f"... and {len(self._done.gone) - _SHOWN} more files that are gone")
        for path in listing.outputs:
            self._say(f"{path!r} is the output of a data build: it was passed over")

    def _run_step(self, step: Step, root: Path, sources: Sequence[Source]) -> None:
        """Run a step on every video that it is not settled for."""
        todo = self._todo(step, root, sources)
        self._done.tasks[step.name] = len(todo)
        job = Job(self._out, root, step.name, self._settings, self._keys)
        seconds = step.seconds(self._settings)
        on_gpu = step.name == "poses" and self._settings.poses.detector.device == "cuda"
        results = self._engine.run(partial(run_step, job), todo, lambda source: seconds, on_gpu=on_gpu)
        for source, result in self._bar(results, step.name, len(todo)):
            outcome = keep_lost(job, source, result) if isinstance(result, Lost) else result
            if outcome.failure is not None:
                self._say(f"{source.path!r} goes into quarantine, step {step.name}: {outcome.failure.what}")
            if outcome.changed:
                self._say(f"{source.path!r} was changed or removed meanwhile")

    def _todo(self, step: Step, root: Path, sources: Sequence[Source]) -> list[Source]:
        """The videos that a step is to run on."""
        place = STEPS.index(step)
        todo, missing = [], 0
        for digest, files in by_content(sources).items():
            folder = self._store.video(digest)
            if is_settled(
                folder.read(step.name, self._keys[step.name]), step.limits(self._settings), retry=self._retry
            ):
                continue
            source = next((source for source in files if is_unchanged(root, source)), None)
            if source is None:
                continue  # gone since it was listed; the quarantine list says so
            # The step before was done, or it failed, or a step failed that it would have needed itself.
            known = (folder.read(earlier.name, self._keys[earlier.name]) for earlier in reversed(STEPS[:place]))
            latest = next((envelope for envelope in known if envelope is not None), None)
            if place == 0 or (latest is not None and latest["step"] == STEPS[place - 1].name and "result" in latest):
                todo.append(source)
            else:
                missing += latest is None or "failed" not in latest
        if missing:
            raise not_done(STEPS[place - 1], missing, self._out)
        return todo

    def _bar(self, items: Iterable[_Item], name: str, total: int) -> Iterator[_Item]:
        return iter(tqdm(items, desc=name, total=total, unit="video", disable=not self._progress or not total))

    def _say(self, message: str) -> None:
        if self._progress:
            tqdm.write(message, file=sys.stderr)


def _check_folders(videos: Path, out: Path) -> None:
    """The videos must not stand where results go."""
    inner, outer = videos.resolve(), out.resolve()
    if inner == outer or inner.is_relative_to(outer / VIDEOS_FOLDER):
        raise UserError(
            "results would be written among the videos",
            where=out,
            remedy="name another output folder; it may stand beside the videos, or within their folder",
        )


@contextmanager
def _only_one(out: Path) -> Iterator[None]:
    """Hold a lock on the folder, so that two commands do not write the same files at once."""
    if not out.is_dir():
        raise UserError("no such data build", where=out, remedy="run `lisa-video data build VIDEOS_DIR OUT` first")
    with open(out / "build.lock", "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                "another command is at work in this folder", where=out, remedy="wait for it, or name another folder"
            ) from error
        yield
