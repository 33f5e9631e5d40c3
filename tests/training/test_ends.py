"""How launched runs end when something goes wrong: who is to blame is named, nobody is left, the status is true."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from lisa_video.launch import training_environment
from lisa_video.training.metrics import read_metrics, read_rows
from lisa_video.training.watchdog import describe

TIMEOUT = 300  # seconds
LONG = ("training.max_steps=10000", "training.checkpoint_every=10000", "training.log_every=1")

HUNGRY_ON_RANK_1 = '''
"""SVD, but on rank 1 the third step asks for more memory than there is."""
import os
import torch
from lisa_video.models.svd.build import *
from lisa_video.models.svd import build as svd

def build(path, options):
    parts = svd.build(path, options)
    encode, calls = parts.backbone.encode, []
    def hungry(*arguments):
        calls.append(1)
        if os.environ.get("RANK") == "1" and len(calls) == 3:
            torch.empty(2**50, dtype=torch.uint8)
        return encode(*arguments)
    parts.backbone.encode = hungry
    return parts
'''


@pytest.fixture
def start(tmp_path, tiny_settings) -> Callable[..., subprocess.Popen[str]]:
    """`start("lisa=null")`: a long run of two ranks in `tmp_path / "run"`, by our command; stderr is piped."""
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump({"run_dir": str(tmp_path / "run"), **tiny_settings}), encoding="utf-8")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/hungry.py").write_text(HUNGRY_ON_RANK_1, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**training_environment(), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [str(Path(sys.executable).with_name("lisa-video")), "train", str(config), "-n", "2", *LONG]
    started: list[subprocess.Popen[str]] = []

    def run(*overrides: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*command, *overrides], env=environment, text=True, stderr=subprocess.PIPE, start_new_session=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and what was said."""
    _, errors = process.communicate(timeout=TIMEOUT)
    return process.returncode, errors


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.1)


def gone(pids: list[int]) -> bool:
    """Nobody runs any more; whoever has ended but was not yet asked for its status (a zombie) does not run."""
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return False
    return True


def pids_in_training(run_dir: Path, steps: int) -> list[int]:
    """Process ids of both ranks, once so many steps are logged."""
    notes = [run_dir / f"ranks/rank-{rank}.json" for rank in (0, 1)]
    wait_until(lambda: len(read_metrics(run_dir)) >= steps and all(note.exists() for note in notes))
    return [int(json.loads(note.read_text(encoding="utf-8"))["pid"]) for note in notes]


@pytest.mark.launcher
def test_a_stopped_rank_is_named_and_all_end(start, tmp_path):
    run_dir = tmp_path / "run"
    process = start("training.watchdog_seconds=15")
    pids = pids_in_training(run_dir, steps=2)
    os.kill(pids[1], signal.SIGSTOP)
    status, errors = ended(process)
    assert status == 74
    (blamed,) = [line for line in errors.splitlines() if "DOES NOT ANSWER" in line]
    assert blamed.startswith(f"rank 1 (pid {pids[1]} on ") and "last clips: clip-" in blamed
    (waiting,) = [line for line in errors.splitlines() if line.startswith(f"rank 0 (pid {pids[0]}")]
    assert "stage 'backward pass and step'" in waiting
    assert "train_step" in (run_dir / "ranks/stacks-rank-0.txt").read_text(encoding="utf-8")
    assert read_rows(run_dir / "trouble.jsonl")[-1]["stuck"] == [blamed, waiting]
    wait_until(lambda: gone(pids))
    assert not (run_dir / "done.json").exists()


@pytest.mark.launcher
def test_memory_that_runs_out_on_one_rank_is_explained_once_and_ends_all(start, tmp_path):
    process = start("backbone.name=own.hungry", "training.watchdog_seconds=1000")
    status, errors = ended(process)
    assert status == 71, errors
    assert errors.count("out of memory on rank 1") == 1 and "out of memory on rank 0" not in errors
    assert errors.count("Traceback") == 1
    assert "what helps most" in errors and "training." in errors
    assert not (tmp_path / "run/done.json").exists()


@pytest.mark.launcher
def test_a_killed_launcher_is_no_success_and_leaves_nobody_behind(start, tmp_path):
    run_dir = tmp_path / "run"
    process = start()
    pids = pids_in_training(run_dir, steps=1)
    os.kill(psutil.Process(pids[0]).ppid(), signal.SIGKILL)
    status, errors = ended(process)
    assert status == 1 and "the run is not done" in errors
    wait_until(lambda: gone(pids))


@pytest.mark.launcher
def test_a_killed_rank_ends_all_at_once(start, tmp_path):
    run_dir = tmp_path / "run"
    process = start("training.watchdog_seconds=1000")
    pids = pids_in_training(run_dir, steps=1)
    os.kill(pids[1], signal.SIGKILL)
    killed = time.monotonic()
    status, errors = ended(process)
    assert status not in (0, 75) and time.monotonic() - killed < 60, errors
    wait_until(lambda: gone(pids))
    assert not (run_dir / "done.json").exists()


@pytest.mark.launcher
def test_a_clip_that_gives_nan_on_one_rank_is_left_out_on_all(start, poisoned, tmp_path):
    cache, clip_id, position = poisoned
    settings = ("seed=1", "data.flip_probability=0", "training.quarantine_after=1", "training.max_steps=6")
    status, errors = ended(start(f"data.cache={cache}", *settings))
    assert status == 0, errors
    step, rank = position // 4 + 1, position % 4 // 2  # two clips a rank
    assert (step, rank) == (2, 1)
    named = {"clip_id": clip_id, "position": position, "rank": rank}
    expected = {"step": step, "not_finite": "loss", "clips": [named], "left_out": [clip_id]}
    assert read_rows(tmp_path / "run/trouble.jsonl") == [expected]
    skipped = [row for rank in (0, 1) for row in read_rows(tmp_path / f"run/skipped-rank{rank}.jsonl")]
    assert {row["clip_id"] for row in skipped} == {clip_id}  # in later epochs, whoever would have had it
    rows = read_metrics(tmp_path / "run")
    assert [row["nonfinite_steps"] for row in rows] == [int(number >= step) for number in range(1, 7)]


def note(begun: int, beats: int, **changes: object) -> dict[str, object]:
    known = {"pid": 1, "host": "a", "step": 3, "stage": "loading clips", "seconds": 9.0, "clips": ["x", "y"]}
    return known | {"begun": begun, "beats": beats} | changes


def test_who_is_to_blame():
    alive = {0: note(7, 1), 1: note(6, 1, stage="forward pass"), 2: note(7, 1)}
    later = {rank: {**known, "beats": 4} for rank, known in alive.items()}
    lines = describe(alive, later, 3)
    assert lines[0] == "rank 1 (pid 1 on a) IS BEHIND, in step 3, stage 'forward pass' for 9 s, last clips: x, y"
    assert [line[:6] for line in lines] == ["rank 1", "rank 0", "rank 2"] and lines[1].split(") ")[1].startswith(
        "is in"
    )
    # One that does not answer is to blame even if others have begun less.
    lines = describe(alive, later | {2: alive[2]}, 3)
    assert lines[0].startswith("rank 2 ") and "DOES NOT ANSWER" in lines[0] and "BEHIND" not in "".join(lines)
    assert describe(alive, later, 4)[0] == "rank 3: DOES NOT ANSWER, and never has"
    level = {rank: {**known, "begun": 7} for rank, known in later.items()}
    assert not any("BEHIND" in line or "ANSWER" in line for line in describe(alive, level, 3))
