"""Records on disk: what counts as done, and that keys follow exactly what a step depends on."""

from __future__ import annotations

import json

import pytest

from data_tools.records import Shots, Span
from data_tools.settings import BuildSettings
from data_tools.steps import STEPS, step_keys
from data_tools.store import Failure, Store, is_settled
from lisa_video.config.load import load_settings

DIGEST = "sha256:" + "ab" * 32
SHOTS = Shots(shots=(Span(start=0, end=9),), damaged=(), decoded_frames=9)
FAILURE = Failure(what="not a video", remedy="replace it")


@pytest.fixture
def folder(tmp_path):
    return Store(tmp_path).video(DIGEST)


def keys(*overrides: str) -> dict[str, str]:
    return step_keys(load_settings(BuildSettings, [], overrides))


def changed(*overrides: str) -> list[str]:
    return [step.name for step in STEPS if keys()[step.name] != keys(*overrides)[step.name]]


def test_a_record_is_read_back_under_its_key_only(folder):
    folder.write("shots", "key", 1.5, SHOTS)
    assert folder.load("shots", "key", Shots) == SHOTS
    assert folder.load("shots", "another key", Shots) is None
    assert folder.load("probe", "key", Shots) is None


def test_a_failure_is_a_record_too(folder):
    folder.write("shots", "key", 0.0, FAILURE)
    assert folder.load("shots", "key", Shots) == FAILURE


def test_the_layout_on_disk(folder, tmp_path):
    folder.write("shots", "key", 1.23456, SHOTS)
    (path,) = tmp_path.rglob("*.json")
    assert path.relative_to(tmp_path).as_posix() == f"videos/ab/{'ab' * 32}/shots.json"
    envelope = json.loads(path.read_text())
    assert envelope.keys() == {"step", "key", "seconds", "result"} and envelope["seconds"] == 1.235
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("text", ["", '{"step": "shots", "key": "k', "[]", "\x00" * 40])
def test_a_torn_record_is_as_if_it_were_not_there(folder, text):
    folder.write("shots", "key", 0.0, SHOTS)
    (folder.path / "shots.json").write_text(text)
    assert folder.load("shots", "key", Shots) is None


def test_failures_stand_until_a_limit_changes_or_somebody_asks(folder):
    def settled(failure: Failure, limit: float, retry: bool = False) -> bool:
        folder.write("shots", "key", 0.0, failure)
        return is_settled(folder.read("shots", "key"), {"shots.timeout_s": limit, "other": 1.0}, retry=retry)

    late = Failure(what="late", remedy="wait", limits={"shots.timeout_s": 60.0})
    assert settled(FAILURE, 60) and settled(FAILURE, 90) and not settled(FAILURE, 60, retry=True)
    assert settled(late, 60) and not settled(late, 90)


def test_results_are_settled_but_for_clips_that_failed():
    result = {"key": "k", "result": {"failed": []}}
    assert is_settled(result, {}, retry=True)
    result["result"]["failed"].append(("clip", "why"))
    assert is_settled(result, {}, retry=False) and not is_settled(result, {}, retry=True)
    assert not is_settled(None, {}, retry=False)


@pytest.mark.parametrize(
    ("override", "steps"),
    [
        ("probe.max_fps=100", ["probe", "shots", "clips", "poses", "verdicts"]),
        ("shots.width=128", ["shots", "clips", "poses", "verdicts"]),
        ("clips.max_frames=32", ["clips", "poses", "verdicts"]),
        ("poses.detector.kind=rtmpose", ["poses", "verdicts"]),
        ("poses.max_side=640", ["poses", "verdicts"]),
        ("filters.jitter=null", ["verdicts"]),
        ("poses.detector.device=cuda", []),
        ("poses.detector.batch_size=4", []),
        ("poses.timeout_s=9", []),
        ("shots.timeout_s=9", []),
        ("manifest.seed=9", []),
        ("engine.workers=9", []),
    ],
)
def test_a_setting_concerns_its_step_and_those_after_it(override, steps):
    assert changed(override) == steps


def test_weights_count_by_content_and_not_by_name(tmp_path):
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(b"weights")
    before, moved = (keys(f"poses.detector.checkpoint={tmp_path / name}") for name in ("a.onnx", "b.onnx"))
    (tmp_path / "c.onnx").write_bytes(b"other weights")
    assert before == moved != keys(f"poses.detector.checkpoint={tmp_path / 'c.onnx'}")
