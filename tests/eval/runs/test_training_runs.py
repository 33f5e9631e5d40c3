"""Several training runs on one machine: real processes side by side, their logs, and truthful exit statuses."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from eval.runs import training_runs
from eval.runs.training_runs import TrainingRun, train_runs
from lisa_video.errors import UserError
from lisa_video.training.metrics import read_metrics


@pytest.fixture
def runs(tiny_config_file, tmp_path):
    """`runs("a", "b")` -> one-step runs in folders of these names; `broken` has no data."""

    def make(*names: str) -> list[TrainingRun]:
        common = ("training.max_steps=1", "training.micro_batch_size=1")
        broken = {"broken": ("data.manifest=none.jsonl",)}
        return [
            TrainingRun(tiny_config_file, (f"run_dir={tmp_path / name}", *common, *broken.get(name, ())))
            for name in names
        ]

    return make


def test_one_that_fails_stops_no_other_and_is_named(runs, tmp_path):
    with pytest.raises(UserError, match=r"1 of 2 runs failed: .*broken ended with status 2 .*none.jsonl"):
        train_runs(runs("broken", "sound"), at_once=2)
    assert [row["step"] for row in read_metrics(tmp_path / "sound")] == [1]
    assert "none.jsonl" in (tmp_path / "broken/training.log").read_text()
    train_runs(runs("sound"), at_once=2)  # is done: starts nothing
    assert runs("sound")[0].is_finished() and not runs("broken")[0].is_finished()


@pytest.mark.parametrize(("statuses", "expected"), [([2, 1], 1), ([75, -9], 137), ([75, 75], 75)])
def test_the_status_is_that_of_the_worst_run(runs, monkeypatch, capsys, statuses, expected):
    ended = list(zip(runs("a", "b"), statuses, strict=True))
    monkeypatch.setattr(training_runs._Starter, "train", lambda *_: ended)
    with pytest.raises(SystemExit) as stopped:
        train_runs([run for run, _ in ended])
    assert stopped.value.code == expected
    assert "2 of 2 runs are not done" in capsys.readouterr().err


def test_a_run_of_other_settings_is_found_before_any_starts(runs, monkeypatch, tiny_config, tmp_path):
    saved = Path(tmp_path / "a/config.yaml")
    saved.parent.mkdir()
    saved.write_text(runs("a")[0].config.read_text().replace("lr: 0.001", "lr: 0.5"))
    monkeypatch.setattr(training_runs._Starter, "train", lambda *_: pytest.fail("started"))
    with pytest.raises(UserError, match=r"other settings.*optimizer\.lr"):
        train_runs(runs("b", "a"))


def test_a_request_to_stop_reaches_the_runs_and_ends_with_75(runs):
    """Whether the first run is still starting or done by then, the second is not begun."""
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(SystemExit) as stopped:
        train_runs(runs("a", "b"), at_once=1)
    assert stopped.value.code == 75
    assert not (runs("b")[0].folder / "training.log").exists() and not runs("b")[0].is_finished()
