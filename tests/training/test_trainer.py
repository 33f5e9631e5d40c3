"""The loop with tiny real parts: what a run leaves behind, and which settings must not change its losses."""

import json

import pytest
import torch

from lisa_video.errors import UserError
from lisa_video.models.build import build_denoiser
from lisa_video.models.weights import load_weights, weights_digest
from lisa_video.training.trainer import Trainer


def test_a_run_publishes_the_average(plain, tiny_parts):
    trainer, exported = plain.trainer, plain.exported
    fresh = build_denoiser(trainer.config, tiny_parts).branch.state_dict()
    now = trainer.model.branch.state_dict()
    average = trainer.average.whole()
    assert exported.keys() == now.keys()  # nothing of the decoder
    assert [name for name, value in exported.items() if not torch.equal(value, average[f"branch.{name}"])] == []
    moved = [name for name in now if not torch.equal(now[name], fresh[name])]
    assert len(moved) > len(now) / 2
    assert all(not torch.equal(exported[name], now[name]) for name in moved)  # not the last weights,
    assert all(not torch.equal(exported[name], fresh[name]) for name in moved)  # nor the first
    assert trainer.average.steps == 3


def test_a_run_proves_that_the_frozen_network_stayed(plain, tiny_parts):
    run_dir = plain.trainer.run_dir
    facts = json.loads((run_dir / "done.json").read_text(encoding="utf-8"))
    assert facts["frozen_digest"] == weights_digest(tiny_parts.backbone)
    assert facts["step"] == 3 and facts["clips_per_step"] == 2 and facts["ranks"] == 1
    assert json.loads((run_dir / "weights/facts.json").read_text(encoding="utf-8"))["step"] == 3
    assert load_weights(run_dir / "weights", "svd")[1] == plain.trainer.contract
    assert [row["step"] for row in plain.rows] == [1, 2, 3]


def test_the_average_starts_from_the_branch_itself(tiny_config, tiny_parts):
    config = tiny_config()
    trainer = Trainer(config)
    fresh = build_denoiser(config, tiny_parts).trainable.state_dict()
    average = trainer.average.whole()
    assert average.keys() == fresh.keys()
    assert all(torch.equal(value, fresh[name]) for name, value in average.items())


def test_a_changed_frozen_network_is_noticed(tiny_config, monkeypatch):
    train_step = Trainer.train_step

    def careless(self, batches):
        train_step(self, batches)
        with torch.no_grad():
            next(self.model.backbone.parameters()).view(-1)[0] += 1

    monkeypatch.setattr(Trainer, "train_step", careless)
    with pytest.raises(RuntimeError, match="frozen network changed"):
        Trainer(tiny_config("training.max_steps=1")).run()


SMOOTH = "optimizer.eps=1e-3"  # as in `plain`


def assert_close(run, other):
    """The same run but for rounding."""
    assert run.losses == pytest.approx(other.losses, abs=1e-6)
    norms = [[row["gradient_norm"] for row in rows] for rows in (run.rows, other.rows)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    for name, value in other.exported.items():
        torch.testing.assert_close(run.exported[name], value, rtol=0, atol=1e-5)  # a hundredth of a step


def test_accumulation_equals_the_larger_micro_batch(train, plain):
    assert plain.trainer.config.training.micro_batch_size == 2
    ones = train("ones", SMOOTH, "training.micro_batch_size=1", "training.gradient_accumulation=2")
    assert_close(ones, plain)


@pytest.mark.parametrize(
    "stage",
    [
        ("training.zero_stage=0",),
        ("training.zero_stage=2", "training.offload_optimizer=true"),
        ("training.zero_stage=3", "training.gradient_checkpointing=true", "preview.every=2"),
        ("training.zero_stage=3", "training.shard_frozen=false"),
        ("training.zero_stage=3", "training.offload_optimizer=true", "training.offload_parameters=true"),
    ],
)
def test_zero_stages_agree_on_one_rank(train, plain, stage):
    assert plain.trainer.config.training.zero_stage == 1
    assert_close(train("other", SMOOTH, *stage), plain)


def test_gradient_checkpointing_changes_no_bit(train, leaves_no_trace):
    leaves_no_trace(train("recomputed", SMOOTH, "training.gradient_checkpointing=true"))  # memory: the plan's tests


def test_bf16_stays_near_float32(train, plain):
    half = train("half", SMOOTH, "training.max_steps=2", "training.precision=bf16", "training.zero_stage=2")
    assert half.trainer.model.dtype == torch.bfloat16
    assert next(half.trainer.codec.parameters()).dtype == torch.float32
    assert half.losses == pytest.approx(plain.losses[:4], rel=0.03)
    assert half.losses != plain.losses[:4]


def test_baseline_and_lisa_start_from_the_same_branch_and_see_the_same_clips(train, plain):
    baseline = train("baseline", "training.max_steps=1", "lisa=null")
    assert baseline.rows[0]["denoising"] == plain.rows[0]["denoising"]
    assert "lisa_ratio" not in baseline.rows[0]
    assert plain.rows[0]["lisa"] == pytest.approx(plain.rows[0]["denoising"])  # nothing learnt: D = 0 and m = m0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.size=[32,34]", r"data.size: frame side of 34 px"),
        ("lisa.layer=down_77", r"lisa.layer: the branch has no feature"),
        ("branch.pose_channels=[4,8]", r"branch.pose_channels: 2 pose encoder widths"),
    ],
)
def test_what_the_network_cannot_take_is_refused_and_claims_nothing(tiny_config, tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        Trainer(tiny_config(override))
    assert not (tmp_path / "run").exists()  # so the corrected command may use it
