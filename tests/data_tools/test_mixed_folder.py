"""A folder as people have them, built, killed, built again and built on Ray: all that is good comes out."""

from __future__ import annotations

import html
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lisa_video.data.manifest import iter_records

ROOT = Path(__file__).parents[2]
SETTINGS = ["poses.detector.kind=keypoint_net", "clips.min_frames=4", "clips.target_fps=8", "manifest.val_fraction=0.3"]


@pytest.fixture(scope="module")
def build(mixed_folder, obeying_permissions):
    """`build(out, ...)` -> the command line of a build of the mixed folder."""

    def command(out: Path, *options: str) -> list[str]:
        program = [str(Path(sys.executable).parent / "lisa-video"), "data", "build", str(mixed_folder.videos), str(out)]
        settings = [*SETTINGS, "--config", str(ROOT / "configs/data/filters_none.yaml"), "--workers", "2"]
        return [*(obeying_permissions or []), *program, *settings, *options]

    return command


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def built(tmp_path_factory, build) -> SimpleNamespace:
    """A finished build. Read only."""
    out = tmp_path_factory.mktemp("built") / "out"
    return SimpleNamespace(out=out, done=run(build(out)))


def results(out: Path) -> dict[str, bytes]:
    """What a build is for: the data set with the keypoints that it names, what is in quarantine, and the table."""
    keypoints = [record.keypoints for record in iter_records(out / "manifest.jsonl")]
    names = ["manifest.jsonl", "quarantine.jsonl", "summary.json", *keypoints]
    return {name: (out / name).read_bytes() for name in names}


def quarantine(out: Path) -> dict[str, dict[str, str]]:
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({line["path"] for line in lines}) == len(lines)
    return {line["path"]: line for line in lines}


def test_each_bad_file_is_in_quarantine_with_its_reason_and_a_remedy(mixed_folder, built):
    found = quarantine(built.out)
    assert found.keys() == mixed_folder.bad.keys()
    wrong = {
        name: found[name]["reason"] for name, said in mixed_folder.bad.items() if said not in found[name]["reason"]
    }
    assert not wrong and all(line["remedy"] for line in found.values())


def test_the_job_goes_on_and_its_end_says_what_happened(mixed_folder, built):
    assert built.done.returncode == 3 and "Traceback" not in built.done.stderr, built.done.stderr
    last = built.done.stdout.splitlines()[-1]
    assert last.startswith(f"{len(mixed_folder.bad)} files or parts") and "quarantine.jsonl" in last


def test_nothing_good_is_lost(mixed_folder, built):
    records = list(iter_records(built.out / "manifest.jsonl"))
    spoilt_in_part = {"damaged middle.mp4", "cut short.mp4"}
    assert {record.source for record in records} == mixed_folder.good | spoilt_in_part
    used = {(record.source, record.start_frame, record.num_frames * record.frame_stride) for record in records}
    for source, start, length in used:
        assert source != "damaged middle.mp4" or start + length <= 20 or start >= 30
        assert source != "cut short.mp4" or start + length <= 35
    (claimed,) = [record for record in records if record.source == "claims hours.mp4"]
    assert claimed.num_frames * claimed.frame_stride == 16  # not the hours of its header
    (varied,) = [record for record in records if record.source == "variable rate.mp4"]
    assert varied.fps == pytest.approx(25 * 6 / 8)  # from frame 0 to 6, at 1, 2, 3, 6, 7, 8, 9 times 1/25 s


def test_the_second_time_nothing_is_done(built, build):
    before = {path: path.stat().st_mtime_ns for path in built.out.rglob("*") if path.name != "build.lock"}
    again = run(build(built.out))
    assert again.returncode == 3 and "nothing to do: all is as it was" in again.stdout, again.stderr
    assert {path: path.stat().st_mtime_ns for path in built.out.rglob("*") if path.name != "build.lock"} == before


def test_the_doctor_tells_of_all_that_was_dropped(mixed_folder, built, tmp_path):
    out = shutil.copytree(built.out, mixed_folder.videos.parent / "examined")  # it names the videos relative to itself
    program = [str(Path(sys.executable).parent / "lisa-video"), "data", "doctor", str(out), "--workers", "1"]
    done = run([*program, "filters.seen.min=2"])
    assert done.returncode == 0 and "Healthy" in done.stdout, done.stderr
    page = (out / "doctor/doctor.html").read_text(encoding="utf-8")
    for line in quarantine(out).values():
        assert all(html.escape(line[part]) in page for part in ("reason", "remedy")), line
    numbers = json.loads((out / "doctor/doctor.json").read_text(encoding="utf-8"))
    clips = list(iter_records(out / "manifest.jsonl"))
    assert numbers["clips"] == len(clips) and numbers["quarantined"] == len(mixed_folder.bad)
    assert numbers["rules"]["seen"]["broken"] == len(clips)  # all measured against the limit that was given
    os.truncate((out / clips[0].keypoints), 100)
    assert run(program).returncode == 3
    worse = json.loads((out / "doctor/doctor.json").read_text(encoding="utf-8"))
    assert not worse["healthy"] and clips[0].clip_id in {problem["clip_id"] for problem in worse["problems"]}


def test_killed_at_random_moments_it_loses_nothing(built, build, tmp_path):
    out, moments = tmp_path / "out", random.Random()
    for share in (0.25, 0.75):  # of the files that a whole build writes
        written = sum(1 for _ in built.out.rglob("*.*"))
        _kill(build(out, "--workers", "1"), out, files=int(written * (share + moments.uniform(-0.2, 0.2))))
    last = run(build(out, "--workers", "1"))
    assert last.returncode == 3, last.stderr
    assert results(out) == results(built.out) and not list(out.rglob("*.tmp"))


def _kill(command: list[str], out: Path, files: int) -> None:
    """Start a build; kill a worker at half as many files as said, and all processes at as many."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline, worker_lives = time.monotonic() + 200, True
    while process.poll() is None and (written := sum(1 for _ in out.rglob("*.*"))) < files:
        assert time.monotonic() < deadline, "the build does not get on"
        workers = psutil.Process(process.pid).children() if worker_lives and written > files / 2 else []
        if workers:
            workers[-1].kill()
            worker_lives = False
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_on_ray_it_is_the_same(built, build, tmp_path):
    done = run(build(tmp_path / "out", "--engine", "ray"))
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    assert results(tmp_path / "out") == results(built.out)
