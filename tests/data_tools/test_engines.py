"""Both engines: every task gets a result, whatever the others do to their workers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from data_tools.engine.base import MAX_TRIES, Engine, Lost
from data_tools.engine.local import LocalEngine
from lisa_video.errors import UserError
from lisa_video.processes import visible_gpus

# Workers import what they run, and tests are no package: so tasks are expressions.
SLEEP = "__import__('time').sleep(60)"
SEGFAULT = "__import__('os').kill(__import__('os').getpid(), 11)"
RAISE = "(_ for _ in ()).throw(KeyError('mistake'))"


REFUSE = (
    "(_ for _ in ()).throw(__import__('lisa_video.errors', fromlist=['_'])"
    ".UserError('no such weights', where='w.onnx', remedy='name others'))"
)
REFUSAL = r"w\.onnx: no such weights\. Remedy: name others"


def results(engine: Engine, tasks: list[str], seconds: float = 60.0) -> dict[str, object]:
    return dict(engine.run(eval, tasks, lambda task: seconds))


@pytest.fixture
def engine():
    with LocalEngine(2) as engine:
        yield engine


def test_hanging_and_dying_workers_cost_one_task_each(engine):
    tasks = [SLEEP, *map(str, range(6)), SEGFAULT, *map(str, range(6, 12))]
    found = results(engine, tasks, seconds=1.0)
    assert found.pop(SLEEP) == Lost("timeout")
    assert found.pop(SEGFAULT) == Lost("died", -11)
    assert found == {str(number): number for number in range(12)}


def test_a_task_whose_worker_was_killed_by_others_is_tried_again(engine, tmp_path):
    attempts = tmp_path / "attempts"
    count = f"open({str(attempts)!r}, 'a').write('x')"
    task = f"[{count}, len(open({str(attempts)!r}).read()) < {MAX_TRIES} and {SEGFAULT}, 'done'][-1]"
    assert results(engine, [task, "1"]) == {task: "done", "1": 1}
    assert attempts.read_text() == "x" * MAX_TRIES


def test_a_mistake_in_the_code_stops_everything_and_says_where(engine):
    with pytest.raises(KeyError, match="mistake") as stopped:
        results(engine, ["1", RAISE, *[SLEEP] * 4])
    assert "Traceback" in str(stopped.value.__cause__)
    assert results(engine, ["1"]) == {"1": 1}  # and it can be used again


def test_users_mistakes_come_through_whole(engine):
    with pytest.raises(UserError, match=REFUSAL):
        results(engine, [REFUSE])


def test_workers_that_cannot_start_are_the_users_affair(monkeypatch):
    monkeypatch.setattr("data_tools.engine.local.start_worker", sys.exit)
    with LocalEngine(1) as engine, pytest.raises(UserError, match="before they do anything"):
        results(engine, ["1"])


def test_memory_is_bounded():
    with LocalEngine(1, memory_mib=1024) as engine, pytest.raises(MemoryError):
        results(engine, ["bytearray(2**31)"])


def test_each_worker_has_a_gpu_to_itself(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,GPU-9")
    assert visible_gpus() == ("7", "GPU-9")
    task = (
        "(__import__('time').sleep(0.3), __import__('os').environ['CUDA_VISIBLE_DEVICES'], __import__('os').getpid())"
    )
    with LocalEngine() as engine:
        tasks = [f"{task} + ({number},)" for number in range(4)]
        seen = {answer[1:3] for _, answer in engine.run(eval, tasks, lambda task: 60.0, on_gpu=True)}
    assert {gpu for gpu, _ in seen} == {"7", "GPU-9"} and len(seen) == 2


def test_nothing_is_started_for_nothing(engine):
    assert results(engine, []) == {} and engine._pool is None


_ON_RAY = """
import json, sys
from data_tools.engine.choose import open_engine
from data_tools.settings import EngineSettings
from lisa_video.errors import UserError

good, bad = json.loads(sys.argv[1])
messages = []
with open_engine(EngineSettings(kind="ray", workers=2)) as engine:
    results = dict(engine.run(eval, good, lambda task: 2.0))
    try:
        list(engine.run(eval, bad, lambda task: 60.0))
    except UserError as error:
        messages.append(str(error))
with open_engine(EngineSettings(kind="ray", address="localhost:1")) as engine:
    try:
        list(engine.run(eval, good, lambda task: 60.0))
    except UserError as error:
        messages.append(str(error))
print(json.dumps([{task: repr(result) for task, result in results.items()}, messages]))
"""


def test_ray_does_the_same_and_keeps_quiet():
    """In a process of its own, because Ray leaves threads and settings behind."""
    tasks = json.dumps([[SLEEP, SEGFAULT, "1", "2", "3"], [REFUSE]])
    environment = {**os.environ, "RAY_ADDRESS": "nowhere:1"}  # of no concern to a local Ray
    command = [sys.executable, "-c", _ON_RAY, tasks]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "Set ray log level" not in line]
    found, (refusal, nobody_there) = json.loads(done.stdout)
    assert found == {
        SLEEP: repr(Lost("timeout")), SEGFAULT: repr(Lost("died", -11)), "1": "1", "2": "2", "3": "3",
    }  # fmt: skip
    assert re.search(REFUSAL, refusal)
    assert "no Ray cluster" in nobody_there and "ray start" in nobody_there
