"""To resume is to run the same command again: bit for bit, whenever the run was cut off."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_flatten_with_path

from lisa_video.errors import UserError
from lisa_video.training.stopping import RunStoppedError
from lisa_video.training.trainer import Trainer

SIX = ("training.max_steps=6", "training.checkpoint_every=2", "preview.every=3", "preview.num_clips=1")


class CutOffError(Exception):
    """Stands for the kill."""


@pytest.fixture
def cut_after(monkeypatch):
    """`cut_after(5)`: training steps raise from the 6th on; `cut_after(None)`: not any more."""
    train_step = Trainer.train_step

    def choose(last: int | None) -> None:
        def limited(self, batches):
            if self.step == last:
                raise CutOffError
            train_step(self, batches)

        monkeypatch.setattr(Trainer, "train_step", limited)

    return choose


def optimizer_state(run_dir: Path) -> dict[str, torch.Tensor]:
    """All tensors of the newest checkpoint: weights, masters, moments, average, random generators."""
    tensors = {}
    for path in sorted(max((run_dir / "checkpoints").glob("step-????????")).glob("*.pt")):
        leaves, _ = tree_flatten_with_path(torch.load(path, weights_only=False))
        tensors |= {f"{path.name}{key}": leaf for key, leaf in leaves if isinstance(leaf, torch.Tensor)}
    return tensors


@pytest.mark.parametrize(("stage", "workers"), [(0, 0), (1, 2), (2, 0), (3, 0)])  # workers take seconds to start
def test_five_and_five_steps_equal_ten(train, same_bits, tmp_path, stage, workers):
    settings = (f"training.zero_stage={stage}", f"data.num_workers={workers}", "training.checkpoint_every=5")
    settings += ("training.micro_batch_size=1", "diagnostics.held_out_every=0")
    whole = train("whole", *settings, "training.max_steps=10")
    train("parts", *settings, "training.max_steps=5")
    parts = train("parts", *settings, "training.max_steps=10")
    same_bits(parts, whole)
    assert parts.trainer.samples_seen == whole.trainer.samples_seen == 10
    states = [optimizer_state(tmp_path / name) for name in ("whole", "parts")]
    assert states[0].keys() == states[1].keys() and len(states[0]) > 1000
    assert [name for name, value in states[0].items() if not torch.equal(value, states[1][name])] == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cut_between_checkpoints_leaves_no_trace(train, same_bits, cut_after, tmp_path, precision):
    # Checkpoints after 3 and 6 steps, reports after 2, 4 and 6: the report at 4 is made of steps before and after.
    precise = ("training.zero_stage=2", f"training.precision={precision}")
    settings = (*SIX, *precise, "training.checkpoint_every=3", "training.log_every=2", "preview.every=0")
    settings += ("training.micro_batch_size=2", "optimizer.lr=1.0e-3", "optimizer.cooldown=0.75")
    whole = train("whole", *settings)
    cut_after(5)
    with pytest.raises(CutOffError):
        train("parts", *settings)
    assert not (tmp_path / "parts/done.json").exists()
    cut_after(None)
    parts = train("parts", *settings)
    same_bits(parts, whole)
    assert [row["step"] for row in parts.rows if "denoising" in row] == [2, 4, 6]
    rates = [row["learning_rate"] for row in parts.rows if "denoising" in row]
    assert rates == pytest.approx([1e-3, 1e-3 * 6 / 9, 1e-3 * 2 / 9])  # with 10, 6 and 2 of 12 clips left


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_a_checkpoint_and_the_run_goes_on(train, same_bits, monkeypatch, tmp_path, number):
    settings = (*SIX, "training.checkpoint_every=100", "preview.every=0")
    whole, train_step = train("whole", *settings), Trainer.train_step

    def signalled(self, batches):
        train_step(self, batches)
        if self.step == 4:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", signalled)
        with pytest.raises(RunStoppedError, match="after step 4 of 6"):
            train("parts", *settings)
    assert [path.name for path in (tmp_path / "parts/checkpoints").glob("step-*")] == ["step-00000004"]
    assert signal.getsignal(number) is handler
    same_bits(train("parts", *settings), whole)


def test_a_prolonged_run_is_not_done_until_it_is(train, cut_after, tmp_path):
    train("run", "training.max_steps=2")
    assert (tmp_path / "run/done.json").exists()
    cut_after(3)
    with pytest.raises(CutOffError):
        train("run", "training.max_steps=4")
    assert not (tmp_path / "run/done.json").exists()


def test_a_finished_run_stays_as_it_is(train, same_bits):
    same_bits(train("run", "training.max_steps=2"), train("run", "training.max_steps=2"))


def test_half_written_checkpoints_are_ignored_and_old_ones_pruned(train, tmp_path):
    folder = tmp_path / "run/checkpoints"
    train("run", "training.max_steps=3", "training.checkpoint_every=1")
    assert sorted(path.name for path in folder.glob("step-*")) == ["step-00000002", "step-00000003"]

    half = folder / "step-00000009.tmp"
    shutil.copytree(folder / "step-00000003", half)
    next(half.glob("*model_states.pt")).write_bytes(b"cut off")
    (folder / "step-7").mkdir()  # not a name of ours
    assert Trainer(train("run", "training.max_steps=3").trainer.config).step == 3
    done = train("run", "training.max_steps=4", "training.checkpoint_every=1")
    assert [row["step"] for row in done.rows] == [1, 2, 3, 4]
    assert sorted(path.name for path in folder.glob("step-0*")) == ["step-00000003", "step-00000004"]


def test_other_settings_are_refused(train):
    train("run", "training.max_steps=1")
    with pytest.raises(UserError, match=r"optimizer.lr: 0.001 -> 0.01"):
        train("run", "training.max_steps=2", "optimizer.lr=0.01")


def test_checkpoints_hold_no_frozen_weights(train, tmp_path):
    trainer = train("run", "training.max_steps=1").trainer
    file = next(Path(tmp_path / "run/checkpoints/step-00000001").glob("*model_states.pt"))
    names = torch.load(file, weights_only=False)["module"].keys()
    assert names == {name for name, p in trainer.model.named_parameters() if p.requires_grad}
