"""Whose fault a failure is: the file's is kept and the job goes on, everything else stops the job."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from data_tools.engine.base import Lost
from data_tools.records import Probe
from data_tools.settings import BuildSettings
from data_tools.steps import step_keys
from data_tools.store import Failure, Store, is_settled
from data_tools.video_files import Source, digest_source, find_files
from data_tools.work import Job, hash_seconds, keep_lost, run_step, unread
from lisa_video.data.video_io import VideoReadError
from lisa_video.errors import UserError


class Bench:
    """One video and a job of one step; `raising` puts an exception in the place of the decoder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.out, self._monkeypatch = folder / "videos", folder / "out", monkeypatch
        self.root.mkdir()
        (self.root / "a.mp4").write_bytes(b"no video")
        self.source = digest_source(self.root, find_files(self.root, ()).files[0])
        self.settings = BuildSettings()
        self.job = Job(self.out, self.root, "probe", self.settings, step_keys(self.settings))
        self.folder = Store(self.out).video(self.source.digest)

    def raising(self, error: BaseException) -> Bench:
        def fail(path: Path, settings: object) -> Probe:
            raise error

        self._monkeypatch.setattr("data_tools.probing.probe_video", fail)
        return self

    def run(self) -> Failure | None:
        outcome = run_step(self.job, self.source)
        assert self.kept() == outcome.failure
        return outcome.failure

    def kept(self) -> Probe | Failure | None:
        return self.folder.load("probe", self.job.keys["probe"], Probe)


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_a_file_that_is_no_video_fails_with_reason_and_remedy(bench):
    failure = bench.run()
    assert "not a readable video" in failure.what and failure.remedy and failure.limits is None


def test_a_video_that_needs_too_much_memory_is_tried_again_with_more(bench):
    failure = bench.raising(MemoryError()).run()
    assert "engine.memory_mib" in failure.remedy and failure.limits == {"engine.memory_mib": None}
    envelope = bench.folder.read("probe", bench.job.keys["probe"])
    assert is_settled(envelope, {"engine.memory_mib": None}, retry=False)
    assert not is_settled(envelope, {"engine.memory_mib": 9000}, retry=False)


def test_a_disk_that_cannot_read_the_video_is_a_failure_of_the_file(bench):
    error = OSError(errno.EIO, os.strerror(errno.EIO), str(bench.root / "a.mp4"))
    assert "Input/output error" in bench.raising(error).run().what


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE])
def test_a_full_or_broken_machine_stops_the_job(bench, number):
    with pytest.raises(UserError, match=f"{os.strerror(number)}.*same command again"):
        bench.raising(OSError(number, os.strerror(number))).run()
    assert bench.kept() is None


def test_what_the_settings_want_and_the_machine_lacks_stops_the_job(bench):
    with pytest.raises(UserError, match="pip install"):
        bench.raising(UserError("PySceneDetect is not installed", remedy="pip install it")).run()
    assert bench.kept() is None


def test_a_mistake_in_the_code_stops_the_job_and_names_the_video(bench):
    with pytest.raises(ZeroDivisionError) as stopped:
        bench.raising(ZeroDivisionError("oops")).run()
    assert stopped.value.__notes__ == [f"in step probe of {bench.root / 'a.mp4'}"] and bench.kept() is None


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"longer than before")])
def test_nothing_is_kept_of_a_file_that_changed_meanwhile(bench, change):
    change(bench.root / "a.mp4")
    outcome = run_step(bench.job, bench.source)
    assert outcome.changed and bench.kept() is None
    assert keep_lost(bench.job, bench.source, Lost("timeout")).changed and bench.kept() is None


def test_a_step_that_runs_takes_the_later_records_with_it(bench):
    for step, key in bench.job.keys.items():
        bench.folder.write(step, key, 0.0, Failure(what="old", remedy="none"))
    bench.raising(VideoReadError("new", remedy="none")).run()
    assert [path.name for path in bench.folder.path.iterdir()] == ["probe.json"]


def test_a_hanging_decoder_is_a_failure_that_a_higher_limit_tries_again(bench):
    failure = keep_lost(bench.job, bench.source, Lost("timeout")).failure
    assert failure == bench.kept() and "60 s" in failure.what and "probe.timeout_s" in failure.remedy
    envelope = bench.folder.read("probe", bench.job.keys["probe"])
    assert is_settled(envelope, {"probe.timeout_s": 60.0}, retry=False)
    assert not is_settled(envelope, {"probe.timeout_s": 90.0}, retry=False)


def test_a_video_that_kills_its_workers_is_a_failure_with_the_signal(bench):
    failure = keep_lost(bench.job, bench.source, Lost("died", -11)).failure
    assert failure == bench.kept() and "SIGSEGV" in failure.what and "--retry" in failure.remedy


def test_time_for_a_digest_grows_with_the_file():
    small, large = Source(path="a", size=10), Source(path="b", size=10**11)
    assert hash_seconds(small) == pytest.approx(60, abs=1) and hash_seconds(large) == pytest.approx(50060)
    assert "50060 s" in unread(large, Lost("timeout")).problem.what
    assert "died" in unread(small, Lost("died")).problem.what
