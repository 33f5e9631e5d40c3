"""The real `deepspeed` launcher with two CPU ranks: ZeRO stages, kill and resume, previews, exit statuses.

Each start costs seconds, so a few runs serve all tests of this file.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lisa_video.config.load import load_config
from lisa_video.pose.keypoint_net import KeypointNet
from lisa_video.train import main
from lisa_video.training.metrics import read_metrics
from lisa_video.training.trainer import Trainer

pytestmark = pytest.mark.launcher

# Six steps, a report each, checkpoints after 2, 4 and 6. A larger eps keeps rounding of gradients near 0 from
# becoming whole steps of Adam, so that losses can be compared between engines.
SETTINGS = ("training.max_steps=6", "optimizer.eps=1e-3")
TIMEOUT = 600  # seconds; a start takes about 15 on two free cores, and a rank left alone would wait for 1800


class Launcher:
    """Starts `deepspeed --num_gpus 2 --module lisa_video.train CONFIG ...` in a folder."""

    def __init__(self, folder: Path, config: Path) -> None:
        self.folder, self.config = folder, config
        self.environment = {
            **os.environ,
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
            "TORCH_EXTENSIONS_DIR": str(folder / "extensions"),
            "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        }

    def start(self, name: str, *overrides: str) -> subprocess.Popen[str]:
        """Start a run in the folder `name`, as the leader of a process group."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        program = [str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", "2", "--master_port", port]
        arguments = ["--module", "lisa_video.train", str(self.config), f"run_dir={self.folder / name}", *overrides]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(program + arguments, env=self.environment, text=True, start_new_session=True, **pipes)

    def run(self, name: str, *overrides: str) -> tuple[int, str]:
        """Exit status and output of a run."""
        process = self.start(name, *overrides)
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
        finally:
            _kill_group(process)
        return process.returncode, output

    def trained(self, name: str, *overrides: str) -> Path:
        """Folder of a run that must succeed."""
        status, output = self.run(name, *SETTINGS, *overrides)
        assert status == 0, output
        return self.folder / name


@pytest.fixture(scope="module")
def launcher(tmp_path_factory, tiny_settings) -> Launcher:
    """A launcher over the tiny settings."""
    folder = tmp_path_factory.mktemp("launched")
    (folder / "tiny.yaml").write_text(yaml.safe_dump({"run_dir": "unset", **tiny_settings}), encoding="utf-8")
    return Launcher(folder, folder / "tiny.yaml")


@pytest.fixture(scope="module")
def stage_0(launcher) -> Path:
    """Stage 0; previews of one clip, so one rank has none."""
    preview = ("preview.every=6", "preview.num_clips=1", "preview.detector=keypoint_net")
    return launcher.trained("stage_0", "training.zero_stage=0", *preview)


@pytest.fixture(scope="module")
def stage_1(launcher) -> Path:
    """Stage 1; previews of three clips, scored by a detector with random weights."""
    torch.manual_seed(0)
    KeypointNet(size=32, width=8, feature_dim=8, depth=1).save_pretrained(launcher.folder / "detector")
    detector = f"preview.detector={launcher.folder / 'detector'}"
    return launcher.trained("stage_1", "training.zero_stage=1", "preview.every=3", "preview.num_clips=3", detector)


@pytest.fixture(scope="module")
def stage_2(launcher) -> Path:
    """Stage 2, killed with SIGKILL between its first checkpoint and its end, then started again."""
    run_dir: Path = launcher.folder / "stage_2"
    process = launcher.start("stage_2", *SETTINGS, "training.zero_stage=2")
    _wait_until(lambda: len(read_metrics(run_dir)) >= 3, process)
    _kill_group(process)
    assert not (run_dir / "done.json").exists()
    assert 2 <= max(row["step"] for row in read_metrics(run_dir)) < 6
    resumed: Path = launcher.trained("stage_2", "training.zero_stage=2")
    return resumed


def _kill_group(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + TIMEOUT
    while not happened():
        assert process.poll() is None and time.monotonic() < end, "the run ended or hung before it could be killed"
        time.sleep(0.02)


def losses(run_dir: Path) -> list[float]:
    """Losses and gradient norm of each step, flat."""
    rows = [row for row in read_metrics(run_dir) if "denoising" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]  # each once, also after a kill
    return [row[name] for row in rows for name in ("denoising", "lisa", "gradient_norm")]


def exported(run_dir: Path) -> dict[str, torch.Tensor]:
    """The published side branch."""
    return load_file(run_dir / "weights/side_branch/diffusion_pytorch_model.safetensors")


def test_one_process_with_twice_the_micro_batch_gives_the_same_losses(stage_0, stage_1, stage_2, tiny_config):
    config = tiny_config(*SETTINGS, "training.micro_batch_size=4")
    Trainer(config).run()
    alone = losses(Path(config.run_dir))
    assert losses(stage_0) == pytest.approx(alone, abs=1e-5)
    assert losses(stage_1) == pytest.approx(alone, abs=1e-5)
    assert losses(stage_2) == pytest.approx(alone, abs=1e-5)
    for run_dir in (stage_0, stage_1):
        torch.testing.assert_close(exported(run_dir), exported(Path(config.run_dir)), rtol=0, atol=1e-5)


def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(stage_1, stage_2):
    # Stages 1 and 2 shard different things but sum the same numbers in the same order.
    assert losses(stage_2) == losses(stage_1)
    torch.testing.assert_close(exported(stage_2), exported(stage_1), rtol=0, atol=0)


def test_a_run_that_is_asked_to_stop_saves_and_says_so(launcher):
    run_dir = launcher.folder / "asked"
    command = [str(Path(sys.executable).with_name("lisa-video")), "train", str(launcher.config), "-n", "2"]
    command += [f"run_dir={run_dir}", *SETTINGS, "training.zero_stage=1", "training.checkpoint_every=1000"]
    long = "training.max_steps=1000"
    process = subprocess.Popen([*command, long], env=launcher.environment, text=True, stderr=subprocess.PIPE)
    _wait_until(lambda: len(read_metrics(run_dir)) >= 2, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)  # what schedulers give
    assert process.returncode == 75, errors
    assert "the same command goes on" in errors
    saved = int(next((run_dir / "checkpoints").glob("step-*")).name.removeprefix("step-"))
    rows = [row["step"] for row in read_metrics(run_dir)]
    assert rows == list(range(1, saved + 1)) and not (run_dir / "done.json").exists()
    goes_on = subprocess.run([*command, f"training.max_steps={saved + 1}"], env=launcher.environment, check=False)
    assert goes_on.returncode == 0
    assert [row["step"] for row in read_metrics(run_dir)] == [*rows, saved + 1]


def test_previews_of_fewer_clips_than_ranks_and_of_a_rest(stage_0, stage_1):
    assert len(list((stage_0 / "previews").iterdir())) == 1
    assert len(list((stage_1 / "previews").iterdir())) == 2 * 3  # after 3 and 6 steps
    for run_dir, steps in ((stage_0, [6]), (stage_1, [3, 6])):
        assert [row["step"] for row in read_metrics(run_dir) if "pck_0.1" in row] == steps


def test_no_extension_is_compiled(launcher, stage_1):
    assert not (launcher.folder / "extensions").exists()


def test_a_mistake_is_told_once_and_ends_with_status_2(launcher, stage_1):
    status, output = launcher.run("stage_1", *SETTINGS, "preview.every=3", "optimizer.lr=0.5")
    assert status == 2
    assert output.count("error: ") == 1 and "optimizer.lr: 0.001 -> 0.5" in output
    assert "Traceback" not in output


def test_sharded_checkpoints_of_two_ranks_are_refused_by_one(launcher, stage_1, tmp_path, capfd):
    shutil.copytree(stage_1, tmp_path / "run")
    arguments = [str(launcher.config), f"run_dir={tmp_path / 'run'}", *SETTINGS, "training.max_steps=7"]
    assert main([*arguments, "training.zero_stage=1"]) == 2
    message = "step-00000006: checkpoint written by 2 ranks, this run has 1. Remedy: resume with the same number"
    assert message in capfd.readouterr().err


def test_whole_checkpoints_of_two_ranks_serve_one(launcher, stage_0, tmp_path):
    shutil.copytree(stage_0, tmp_path / "run")
    arguments = [str(launcher.config), f"run_dir={tmp_path / 'run'}", *SETTINGS, "training.max_steps=7"]
    trainer = Trainer(load_config(arguments[0], [*arguments[1:], "training.zero_stage=0"]))
    assert trainer.samples_seen == 6 * 2 * 2  # steps, clips, ranks
    trainer.run()
    assert trainer.samples_seen == 6 * 2 * 2 + 2
    assert [row["step"] for row in read_metrics(tmp_path / "run") if "denoising" in row] == [1, 2, 3, 4, 5, 6, 7]


BROKEN_ON_RANK_1 = '''
"""SVD, but for rank 1."""
import os
from lisa_video.models.svd.build import *
from lisa_video.models.svd import build as svd

def build(path, options):
    if os.environ["RANK"] == "1":
        raise RuntimeError("broken on rank 1")
    return svd.build(path, options)
'''


def test_a_fault_on_one_rank_ends_all(launcher):
    (launcher.folder / "own").mkdir()
    (launcher.folder / "own/broken.py").write_text(BROKEN_ON_RANK_1, encoding="utf-8")
    status, output = launcher.run("broken", *SETTINGS, "backbone.name=own.broken")
    assert status == 1
    assert output.count("RuntimeError: broken on rank 1") == 1
    assert not (launcher.folder / "broken/done.json").exists()
