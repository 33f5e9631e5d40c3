"""No rank waits for ever: who is stuck is named, with its last clips, and a fault of one rank ends all.

Ranks wait for each other in every step, so one that stands still, or is gone, leaves the others waiting. A thread of
each rank writes once a second what its rank is doing, to `run_dir/ranks/`, which all machines of a run see. The first
that finds its own rank without progress for too long compares the notes and ends the run.
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, final

from lisa_video import distributed
from lisa_video.training.exits import EXIT_OUT_OF_MEMORY, EXIT_STUCK, EXIT_USER_ERROR, exit_status
from lisa_video.training.stopping import RunStoppedError

_BEAT = 1.0  # seconds between two notes of a rank
# Seconds that a failed rank has for its own words before the others end: ranks other than 0 hold back a mistake of the
# user's for some, and a memory plan takes a while.
_GRACE = {EXIT_USER_ERROR: 15.0, EXIT_OUT_OF_MEMORY: 120.0}
_SHORT_GRACE = 2.0
_TOLD = "told"  # a file: the failed rank has said what it had to say
_LAUNCHED = "CROSS_RANK"  # set by DeepSpeed's launcher


class Place(NamedTuple):
    """Where a rank is in its run.

    Attributes:
        begun: stages begun so far; all ranks go through the same ones, so the lowest is behind.
        step: optimizer step.
        stage: what it does.
        clips: the last clips it was given.
        since: `time.monotonic()` when the stage began.
    """

    begun: int
    step: int
    stage: str
    clips: tuple[str, ...]
    since: float


@final
class Watchdog:
    """While entered, watches this rank and all others; every rank must enter it.

    Args:
        run_dir: of the run, on a file system that all ranks see.
        limit: seconds without a new stage until a rank counts as stuck.
    """

    def __init__(self, run_dir: Path, limit: float) -> None:
        self._folder, self._trouble, self._limit = run_dir / "ranks", run_dir / "trouble.jsonl", limit
        self._rank = distributed.rank()
        self._place = Place(0, 0, "start", (), time.monotonic())
        self._beats, self._stop, self._parent = 0, threading.Event(), os.getppid()
        self._thread: threading.Thread | None = None

    def mark(self, stage: str, step: int, clips: Sequence[str] | None = None) -> None:
        """Note that a stage begins; cheap.

        Args:
            stage: in words.
            step: optimizer step.
            clips: names of the clips in hand; None: still the same.
        """
        last = self._place
        self._place = Place(last.begun + 1, step, stage, tuple(clips or last.clips), time.monotonic())

    def __enter__(self) -> Watchdog:
        if distributed.is_main():
            self._folder.mkdir(parents=True, exist_ok=True)
            for old in self._folder.iterdir():
                old.unlink()
        distributed.barrier()
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()
        if error is None or isinstance(error, RunStoppedError):
            return
        reason = {"status": exit_status(error), "rank": self._rank, "what": f"{type(error).__name__}: {error}"}
        if not self._end_all(reason):  # most likely a lost connection, and the cause is the other rank's
            first = self._reason()
            if not first["status"] == reason["status"] == EXIT_USER_ERROR:  # that all ranks find, and rank 0 tells
                print(_because(self._rank, first), file=sys.stderr, flush=True)
                raise SystemExit(int(first["status"])) from error

    @property
    def _marker(self) -> Path:
        return self._folder / "ended.json"

    def _end_all(self, reason: dict[str, Any]) -> bool:
        """Tell all ranks to end; False if another has done so before."""
        try:
            with open(self._marker, "x", encoding="utf-8") as file:
                file.write(json.dumps(reason))
        except FileExistsError:
            return False
        return True

    def _reason(self) -> dict[str, Any]:
        while not (text := self._marker.read_text(encoding="utf-8")).endswith("}"):
            time.sleep(0.1)  # it is being written
        reason: dict[str, Any] = json.loads(text)
        return reason

    def _watch(self) -> None:
        while not self._stop.wait(_BEAT):
            self._write_note()
            if self._marker.exists():
                self._end_with(self._reason())
            if _LAUNCHED in os.environ and os.getppid() != self._parent:
                # Nobody would end this rank if another failed, and the same command again would be a second writer.
                print(f"rank {self._rank} ends: its launcher is gone", file=sys.stderr, flush=True)
                os._exit(1)
            if time.monotonic() - self._place.since > self._limit:
                self._report()

    def _write_note(self) -> None:
        self._beats += 1
        place = self._place
        note = place._asdict() | {"seconds": round(time.monotonic() - place.since, 1), "beats": self._beats}
        note |= {"rank": self._rank, "host": socket.gethostname(), "pid": os.getpid()}
        draft = self._folder / f"rank-{self._rank}.tmp"
        draft.write_text(json.dumps(note), encoding="utf-8")
        draft.replace(self._folder / f"rank-{self._rank}.json")

    def _dump_stacks(self) -> None:
        with open(self._folder / f"stacks-rank-{self._rank}.txt", "w", encoding="utf-8") as file:
            faulthandler.dump_traceback(file, all_threads=True)

    def _end_with(self, reason: dict[str, Any]) -> None:
        """End because of another rank. `os._exit`: the main thread may be in a call that never returns."""
        status = int(reason["status"])
        if status == EXIT_STUCK:
            self._dump_stacks()
            self._write_note()  # the other one is looking who answers
        end = time.monotonic() + _GRACE.get(status, _SHORT_GRACE)
        while time.monotonic() < end and not (self._folder / _TOLD).exists():
            time.sleep(0.2)
        if not self._stop.is_set():  # else the main thread is on its way out with a word of its own
            print(_because(self._rank, reason), file=sys.stderr, flush=True)
            os._exit(status)

    def _report(self) -> None:
        """This rank makes no progress: find out who is behind, say it, and end all."""
        self._dump_stacks()
        place = self._place
        reason = {"status": EXIT_STUCK, "rank": self._rank, "what": f"no progress for {self._limit:g} s"}
        if not self._end_all(reason):
            return
        before = self._notes()
        time.sleep(3 * _BEAT)
        self._write_note()
        lines = describe(before, self._notes(), distributed.world_size())
        text = "\n".join(
            [f"stuck: no progress on rank {self._rank} for {self._limit:g} s (training.watchdog_seconds)", *lines]
        )
        print(f"{text}\nstacks of all threads: {self._folder}/stacks-rank-*.txt", file=sys.stderr, flush=True)
        with open(self._trouble, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": place.step, "stuck": lines}) + "\n")
        os._exit(EXIT_STUCK)

    def _notes(self) -> dict[int, dict[str, Any]]:
        notes = [json.loads(path.read_text(encoding="utf-8")) for path in self._folder.glob("rank-*.json")]
        return {int(note["rank"]): note for note in notes}


def have_told(run_dir: Path) -> None:
    """Note that this rank has explained its failure, so that the others need not wait for it."""
    if (run_dir / "ranks").is_dir():
        (run_dir / "ranks" / _TOLD).touch()


def _because(rank: int, reason: dict[str, Any]) -> str:
    return f"rank {rank} ends because of rank {reason['rank']}: {reason['what']}"


def describe(before: dict[int, dict[str, Any]], after: dict[int, dict[str, Any]], world_size: int) -> list[str]:
    """One line for each rank, those to blame first.

    To blame are ranks that do not answer: whose note did not change between two looks. If all answer, those that have
    begun the fewest stages; if all have begun the same, nobody can be told from the rest.

    Args:
        before: notes of the ranks.
        after: the same some beats later.
        world_size: number of ranks.
    """
    silent = {rank for rank in range(world_size) if after.get(rank) is None or after[rank] == before.get(rank)}
    fewest = min((note["begun"] for note in after.values()), default=0)
    behind = {rank for rank, note in after.items() if note["begun"] == fewest}
    blamed = silent or (behind if len(behind) < world_size else set())
    lines = []
    for rank in sorted(range(world_size), key=lambda number: (number not in blamed, number)):
        note = after.get(rank)
        if note is None:
            lines.append(f"rank {rank}: DOES NOT ANSWER, and never has")
            continue
        verdict = "DOES NOT ANSWER (stopped, killed or cut off), last seen" if rank in silent else "is"
        if rank in blamed and rank not in silent:
            verdict = "IS BEHIND,"
        lines.append(
            f"rank {rank} (pid {note['pid']} on {note['host']}) {verdict} in step {note['step']}, stage "
            f"{note['stage']!r} for {note['seconds']:g} s, last clips: {', '.join(note['clips']) or 'none'}"
        )
    return lines
