"""Losses that are not finite: steps thrown away without a trace, clips named and left out, an end that is told."""

from __future__ import annotations

import pytest
import torch

from lisa_video.errors import UserError
from lisa_video.training.metrics import read_rows
from lisa_video.training.trouble import Seen, Trouble

NAN = float("nan")
STAGES = [(stage, precision) for stage in (0, 1, 2, 3) for precision in ("fp32", "bf16")]
CACHED = ("seed=1", "data.flip_probability=0", "training.max_steps=6", "training.quarantine_after=1")


@pytest.mark.parametrize(("stage", "precision"), STAGES)
@pytest.mark.parametrize("bad", [(NAN, 1, 1, 1), (1, 1, float("inf"), 1)], ids=["nan", "inf"])
def test_a_step_that_is_not_finite_leaves_no_trace(two_weights, step, stage, precision, bad):
    settings = (f"training.zero_stage={stage}", f"training.precision={precision}", "optimizer.lr=0.1")
    disturbed, sound = two_weights(*settings), two_weights(*settings)
    first, second = (1.0, -2.0, 3.0, -4.0), (2.0, 2.0, -1.0, 0.5)
    assert torch.equal(step(disturbed, first), step(sound, first)) and disturbed.step_applied
    assert torch.equal(step(disturbed, bad), step(sound)) and not disturbed.step_applied
    # The moments, their count and left-over gradients would show here.
    assert torch.equal(step(disturbed, second), step(sound, second)) and disturbed.step_applied
    assert disturbed.gradient_norm == sound.gradient_norm


@pytest.mark.parametrize("stage", (0, 1, 2, 3))
def test_one_bad_micro_batch_takes_its_step_with_it(two_weights, step, stage):
    settings = (f"training.zero_stage={stage}", "training.gradient_accumulation=2", "optimizer.lr=0.1")
    disturbed, sound = two_weights(*settings), two_weights(*settings)
    good, other = (1.0, -2.0, 3.0, -4.0), (2.0, 2.0, -1.0, 0.5)
    assert torch.equal(step(disturbed, (NAN, 1, 1, 1), good), step(sound))  # the first of two
    assert not disturbed.step_applied
    assert torch.equal(step(disturbed, good, other), step(sound, good, other)) and disturbed.step_applied


def test_an_infinite_loss_with_finite_gradients_is_thrown_away_too(two_weights, step):
    engine = two_weights("training.zero_stage=1")
    x, y = torch.zeros(3), torch.zeros(1)
    engine.backward_and_step(engine.module(x, y) + float("inf"))
    assert not engine.step_applied


def test_the_clip_is_named_left_out_and_everything_else_stays(train, poisoned, tmp_path):
    cache, clip_id, position = poisoned
    run = train("run", f"data.cache={cache}", *CACHED)
    step = position // 2 + 1
    named = {"clip_id": clip_id, "position": position, "rank": 0}
    expected = {"step": step, "not_finite": "loss", "clips": [named], "left_out": [clip_id]}
    assert read_rows(tmp_path / "run/trouble.jsonl") == [expected]
    skipped = read_rows(tmp_path / "run/skipped-rank0.jsonl")
    assert [row["clip_id"] for row in skipped] == [clip_id] and "not finite" in skipped[0]["reason"]
    assert [row["nonfinite_steps"] for row in run.rows] == [int(number >= step) for number in range(1, 7)]
    assert [number for number, row in enumerate(run.rows, start=1) if "gradient_norm" not in row] == [step]
    assert run.trainer.average.steps == 5 and run.trainer.samples_seen == 12
    assert all(value.isfinite().all() for value in run.states.values())


def test_it_is_left_out_alike_with_loading_ahead_and_after_a_resume(train, poisoned, same_bits):
    settings = (f"data.cache={poisoned[0]}", *CACHED)
    whole = train("whole", *settings)
    same_bits(train("ahead", *settings, "data.num_workers=1"), whole)
    until = poisoned[2] // 2 + 1  # the step that is thrown away
    train("parts", *settings, f"training.max_steps={until}")
    same_bits(train("parts", *settings), whole)


def test_too_many_such_steps_end_the_run_and_it_can_go_on(train, poisoned, tmp_path):
    cache, clip_id, position = poisoned
    settings = (f"data.cache={cache}", *CACHED, "training.quarantine_after=9", "training.checkpoint_every=100")
    message = rf"trouble.jsonl: 1 steps had a loss or gradient .* most often in them: {clip_id} \(1\)\. Remedy: look"
    with pytest.raises(UserError, match=message):
        train("run", *settings, "training.max_nonfinite=1")
    assert [path.name for path in (tmp_path / "run/checkpoints").glob("step-*")] == [f"step-{position // 2 + 1:08d}"]
    assert not (tmp_path / "run/done.json").exists()
    run = train("run", *settings, "training.max_nonfinite=9")
    assert run.rows[-1]["nonfinite_steps"] == 2 and len(read_rows(tmp_path / "run/trouble.jsonl")) == 2


def test_without_a_bad_loss_all_clips_of_the_step_are_suspects(tmp_path, tiny_config):
    trouble = Trouble(tmp_path, tiny_config("training.quarantine_after=2").training, 0)
    trouble.note(1, [Seen("a", 0, 0, True), Seen("b", 1, 0, True)])
    assert trouble.left_out == frozenset()
    trouble.note(2, [Seen("c", 2, 0, True), Seen("b", 3, 0, True)])
    assert trouble.left_out == {"b"}
    assert [row["not_finite"] for row in read_rows(tmp_path / "trouble.jsonl")] == ["gradient"] * 2
    resumed = Trouble(tmp_path, tiny_config("training.quarantine_after=2").training, 1)
    resumed.load_state_dict(trouble.state_dict())
    assert resumed.left_out == {"b"} and resumed.steps == 2
    assert [row["step"] for row in read_rows(tmp_path / "trouble.jsonl")] == [1]
