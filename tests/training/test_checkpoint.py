"""The checkpoint folder: what is in it, which one is found, which ones stay, and what a fault leaves behind."""

import errno
import logging
import threading

import numpy as np
import pytest
import torch

from lisa_video.errors import UserError
from lisa_video.training import checkpoint, checkpoint_files
from lisa_video.training.checkpoint import Checkpoints
from lisa_video.training.ema import MovingAverage

GRADIENTS = ((1, -2, 3, -4), (0, 1, -1, 2), (5, 0, 0, 1))


class Run:
    """An engine around `TwoWeights` with its average and checkpoints in `folder`."""

    def __init__(self, two_weights, step, folder, *overrides):
        self.engine = two_weights("optimizer.lr=0.1", *overrides)
        self.average = MovingAverage(self.engine, 0.9)
        self.checkpoints = Checkpoints(folder, self.engine.config.training, self.engine, self.average)
        self._step = step

    def train(self, *gradients):
        for gradient in gradients:
            self._step(self.engine, gradient)
            self.average.update()

    def save(self, step):
        self.checkpoints.save(step, {"samples_seen": 10 * step})
        self.checkpoints.finish()

    @property
    def state(self):
        masters = dict(self.engine.whole(self.engine.masters()))
        return torch.cat([*masters.values(), *self.average.whole().values()]).clone()


@pytest.fixture
def run(two_weights, step, tmp_path):
    """`run("training.zero_stage=3")` -> a fresh engine over the same folder each time."""
    return lambda *overrides: Run(two_weights, step, tmp_path / "checkpoints", *overrides)


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))


@pytest.mark.parametrize("background", ["true", "false"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_run_goes_on_with_the_same_bits(run, stage, precision, background):
    settings = (f"training.zero_stage={stage}", f"training.precision={precision}")
    settings += (f"training.async_checkpoints={background}",)
    first = run(*settings)
    first.train(*GRADIENTS[:2])
    first.checkpoints.save(2, {"samples_seen": 20})
    first.train(GRADIENTS[2])  # while it is written
    first.checkpoints.finish()
    second = run(*settings)
    assert second.checkpoints.load()["samples_seen"] == 20
    assert second.average.steps == 2
    second.train(GRADIENTS[2])
    assert torch.equal(second.state, first.state)


def test_training_goes_on_while_a_checkpoint_is_written(run, tmp_path, monkeypatch):
    first, go, save = run(), threading.Event(), torch.save
    monkeypatch.setattr(checkpoint_files.torch, "save", lambda *args: go.wait(60) and save(*args))
    first.train(GRADIENTS[0])
    then = first.state
    first.checkpoints.save(1, {})
    first.train(GRADIENTS[1])
    first.checkpoints.poll()
    assert names(tmp_path) == ["step-00000001.tmp"]  # not complete, and says so
    go.set()
    first.checkpoints.save(2, {})  # waits for the first
    first.checkpoints.finish()
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    (tmp_path / "checkpoints/step-00000002").rename(tmp_path / "second")
    second = run()
    second.checkpoints.load()
    assert torch.equal(second.state, then)


@pytest.mark.parametrize("background", ["true", "false"])
@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), UserError, "the disk is full.*Remedy: free space"),
        (OSError(errno.EIO, "Input/output error"), RuntimeError, "rank 0 could not write .*Input/output error"),
    ],
)
def test_a_checkpoint_that_cannot_be_written_fails_the_run(
    run, tmp_path, monkeypatch, background, fault, error, message
):
    first = run(f"training.async_checkpoints={background}")
    first.save(1)

    def broken(*args):
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files.torch, "save", broken)
        with pytest.raises(error, match=message):
            first.save(2)
    assert names(tmp_path) == ["step-00000001", "step-00000002.tmp"]
    assert run().checkpoints.load()["step"] == 1


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "name", "reason"),
    [
        (cut, "*_optim_states.pt", "bytes, not"),
        (flip, "*_model_states.pt", "other content than was written"),
        (lambda path: path.unlink(), "average.pt", "average.pt is missing"),
        (lambda path: path.unlink(), "manifest.json", "cannot be read"),
        (cut, "manifest.json", "cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_told(run, tmp_path, caplog, harm, name, reason):
    first = run()
    for step in (1, 2):
        first.save(step)
    harm(next((tmp_path / "checkpoints/step-00000002").glob(name)))
    with caplog.at_level(logging.WARNING):
        assert run().checkpoints.load()["step"] == 1
    assert "step-00000002 is damaged" in caplog.text and reason in caplog.text
    assert names(tmp_path) == ["step-00000001", "step-00000002.damaged"]
    first.save(2)
    assert run().checkpoints.load()["step"] == 2


def test_only_damaged_checkpoints_are_no_reason_to_start_over(run, tmp_path):
    run().save(1)
    cut(tmp_path / "checkpoints/step-00000001/average.pt")
    with pytest.raises(UserError, match="all 1 checkpoints are damaged"):
        run().checkpoints.load()


def test_the_newest_stay_and_every_so_many_steps_one_for_good(run, tmp_path):
    first = run("training.keep_checkpoints=2", "training.keep_every=4")
    for step in range(1, 12):
        first.save(step)
    assert names(tmp_path) == [f"step-{step:08d}" for step in (4, 8, 10, 11)]


def test_a_disk_without_room_is_told_before(run, tmp_path, monkeypatch):
    first = run()
    usage = checkpoint.shutil.disk_usage(tmp_path)._replace(free=4 * 20 - 1)  # four weights of 20 bytes
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"MiB free on the disk, a checkpoint takes .*Remedy: free space"):
        first.save(1)
    with pytest.raises(UserError, match="a checkpoint takes"):
        run()
    assert not (tmp_path / "checkpoints").exists()


def test_random_generators_go_on(run):
    run().save(1)
    drawn = torch.rand(3), np.random.rand(3)
    torch.manual_seed(1234)
    np.random.seed(1234)
    run().checkpoints.load()
    assert torch.equal(torch.rand(3), drawn[0]) and np.array_equal(np.random.rand(3), drawn[1])
