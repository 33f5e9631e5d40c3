"""What a worker process does: one step of one video, and the decision whose fault a failure is.

A failure of the file is kept beside the results and the job goes on. Everything else stops the job at once: what is
wrong with the machine or the settings would fail every file, and a mistake in the code must not look like a bad file.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

from data_tools.engine.base import Lost
from data_tools.records import Record
from data_tools.settings import BuildSettings
from data_tools.steps import MEMORY_LIMIT, STEPS, Keys, Step, Video
from data_tools.store import Failure, Store
from data_tools.video_files import Problem, Source, digest_source, is_unchanged
from lisa_video.data.video_io import VideoReadError
from lisa_video.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Job:
    """One step for many videos.

    Attributes:
        out: folder of the build.
        root: folder of the videos.
        step: name of the step.
        settings: all of them.
        keys: of all steps.
    """

    out: Path
    root: Path
    step: str
    settings: BuildSettings
    keys: Keys


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        failure: why there is no result, if there is none.
        changed: the file is gone or was changed while it was worked on; nothing was kept.
    """

    failure: Failure | None = None
    changed: bool = False


def run_step(job: Job, source: Source) -> Outcome:
    """Do the job's step for one video and keep its record; runs in a worker.

    Raises:
        UserError: the machine or the settings do not allow it.
        Exception: a mistake in the code; a note says at which video.
    """
    place = next(number for number, step in enumerate(STEPS) if step.name == job.step)
    step = STEPS[place]
    assert source.digest is not None
    folder = Store(job.out).video(source.digest)
    video = Video(job.root / source.path, source.digest, folder, job.keys)
    start = time.monotonic()
    try:
        for later in STEPS[place:]:
            folder.forget(later.name)
        outcome = _attempt(step, video, job.settings)
        if not is_unchanged(job.root, source):
            return Outcome(changed=True)
        folder.write(step.name, job.keys[step.name], time.monotonic() - start, outcome)
    except OSError as error:
        raise system_error(error, job.out) from error
    except Exception as error:
        error.add_note(f"in step {step.name} of {video.path}")
        raise
    return Outcome(outcome if isinstance(outcome, Failure) else None)


def _attempt(step: Step, video: Video, settings: BuildSettings) -> Record:
    try:
        return step.run(video, settings)
    except VideoReadError as error:
        return Failure(what=error.what, remedy=error.remedy)
    except MemoryError:
        limits = {MEMORY_LIMIT: settings.engine.memory_mib}
        return Failure(
            what="more memory was needed than a worker may have",
            remedy=f"raise {MEMORY_LIMIT}, or lower poses.max_side or poses.detector.batch_size",
            limits=limits,
        )
    except OSError as error:
        if error.filename is None or os.fspath(error.filename) != str(video.path):
            raise
        return Failure(what=f"the file cannot be read ({error.strerror})", remedy="mend the file or its disk")


def keep_lost(job: Job, source: Source, lost: Lost) -> Outcome:
    """Keep the failure of a task whose worker was killed or died; runs in the main process."""
    step = next(step for step in STEPS if step.name == job.step)
    limits = step.limits(job.settings)
    if lost.reason == "timeout":
        seconds = limits[step.time_limit]
        failure = Failure(
            what=f"not done within {seconds:g} s",
            remedy=f"raise {step.time_limit}, or look at the file: decoders hang on some damaged ones",
            limits={step.time_limit: seconds},
        )
    else:
        failure = Failure(
            what=f"the worker process died ({_exit(lost.exit_code)}), each time it was tried",
            remedy="look at the file, or give workers more memory (fewer of them: engine.workers), then use --retry",
        )
    assert source.digest is not None
    if not is_unchanged(job.root, source):
        return Outcome(changed=True)
    try:
        Store(job.out).video(source.digest).write(step.name, job.keys[step.name], 0.0, failure)
    except OSError as error:
        raise system_error(error, job.out) from error
    return Outcome(failure)


def take_digest(root: Path, source: Source) -> Source:
    """Digest of one file; runs in a worker."""
    return digest_source(root, source)


def hash_seconds(source: Source) -> float:
    """Time limit for taking the digest of a file: slower disks are broken ones."""
    return 60 + source.size / 2e6


def unread(source: Source, lost: Lost) -> Source:
    """A file whose digest was not taken, because the worker was killed or died."""
    reason = f"not read within {hash_seconds(source):.0f} s" if lost.reason == "timeout" else "the worker process died"
    problem = Problem(what=f"{reason} while its digest was taken", remedy="check the disk, then use --retry")
    return source.model_copy(update={"problem": problem})


def system_error(error: OSError, out: Path) -> UserError:
    """What the operating system refused, as a message; never the fault of a video."""
    full = error.errno in _FULL
    return UserError(
        f"the system refused to go on ({error.strerror or error})",
        where=error.filename or out,
        remedy=("free some disk" if full else "mend that") + ", then run the same command again: what is done is kept",
    )


def _exit(code: int) -> str:
    import signal

    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
