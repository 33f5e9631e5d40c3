"""The real `deepspeed` launcher with two CPU ranks: ZeRO stages, kill and resume, previews, exit statuses.

Each start costs seconds, so a few runs serve all tests of this file.
"""

from __future__ import annotations

import json
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
from lisa_video.training.metrics import read_metrics
from lisa_video.training.trainer import Trainer

pytestmark = pytest.mark.launcher

# A report each step. A larger eps keeps rounding of gradients near 0 from becoming whole steps of Adam, so that losses
# can be compared between engines.
SETTINGS = ("optimizer.eps=1e-3", "optimizer.lr=3e-4", "diagnostics.held_out_every=0", "training.micro_batch_size=1")
TWENTY = (*SETTINGS, "training.max_steps=20", "training.checkpoint_every=18", "training.export_every=6")
SIX = (*SETTINGS, "training.max_steps=6")
MUON = ("optimizer.kind=muon", "training.zero_stage=0")
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
        arguments = [str(self.config), f"run_dir={self.folder / name}", *overrides]
        return self._start("--module", "lisa_video.train", *arguments)

    def _start(self, *program: str) -> subprocess.Popen[str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        launcher = [str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", "2", "--master_port", port]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen([*launcher, *program], env=self.environment, text=True, start_new_session=True, **pipes)

    def run(self, name: str, *overrides: str) -> tuple[int, str]:
        """Exit status and output of a run."""
        return self._ended(self.start(name, *overrides))

    def run_all(self, *runs: tuple[str, ...]) -> None:
        """Train several runs, (name, override, ...), one after the other in one process group."""
        program = [str(Path(__file__).with_name("many_runs.py")), str(self.config), str(self.folder)]
        status, output = self._ended(self._start(*program, *(" ".join(run) for run in runs)))
        assert status == 0, output

    @staticmethod
    def _ended(process: subprocess.Popen[str]) -> tuple[int, str]:
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
        finally:
            _kill_group(process)
        return process.returncode, output

    def trained(self, name: str, *overrides: str) -> Path:
        """Folder of a run that must succeed."""
        status, output = self.run(name, *SIX, *overrides)
        assert status == 0, output
        return self.folder / name


@pytest.fixture(scope="module")
def launcher(tmp_path_factory, tiny_settings) -> Launcher:
    """A launcher over the tiny settings."""
    folder = tmp_path_factory.mktemp("launched")
    (folder / "tiny.yaml").write_text(yaml.safe_dump({"run_dir": "unset", **tiny_settings}), encoding="utf-8")
    return Launcher(folder, folder / "tiny.yaml")


@pytest.fixture(scope="module")
def alone(launcher) -> Path:
    """One process with twice the micro-batch."""
    overrides = (*TWENTY, "training.micro_batch_size=2", f"run_dir={launcher.folder / 'alone'}")
    Trainer(load_config(launcher.config, overrides)).run()
    return launcher.folder / "alone"


@pytest.fixture(scope="module")
def runs(launcher, alone) -> Path:
    """Folder of `stage_0` to `stage_3` with previews of one clip or of three, `offload`, and `from_one`: two ranks that
    go on from the checkpoint of one after 18 steps."""
    torch.manual_seed(0)
    KeypointNet(size=32, width=8, feature_dim=8, depth=1).save_pretrained(launcher.folder / "detector")
    detector = f"preview.detector={launcher.folder / 'detector'}"
    shutil.copytree(alone, launcher.folder / "from_one")
    shutil.rmtree(launcher.folder / "from_one/checkpoints/step-00000020")
    one = ("preview.num_clips=1",)
    in_host_memory = ("training.offload_optimizer=true", "training.offload_parameters=true", "training.max_steps=3")
    launcher.run_all(
        ("stage_0", *TWENTY, "training.zero_stage=0", "preview.every=20", *one, "preview.detector=keypoint_net"),
        ("stage_1", *TWENTY, "training.zero_stage=1", "preview.every=10", "preview.num_clips=3", detector),
        ("stage_2", *TWENTY, "training.zero_stage=2"),
        ("stage_3", *TWENTY, "training.zero_stage=3", "preview.every=20", *one),
        ("offload", *SETTINGS, "training.zero_stage=3", *in_host_memory),
        ("from_one", *TWENTY, "training.zero_stage=1"),
        ("muon", *SIX, *MUON),
    )
    folder: Path = launcher.folder
    return folder


@pytest.fixture(scope="module")
def killed(launcher) -> Path:
    """Stage 2, killed with SIGKILL between its first checkpoint and its end, then started again."""
    run_dir: Path = launcher.folder / "killed"
    process = launcher.start("killed", *SIX, "training.zero_stage=2")
    _wait_until(lambda: len(read_metrics(run_dir)) >= 3, process)
    _kill_group(process)
    assert not (run_dir / "done.json").exists()
    assert 2 <= max(row["step"] for row in read_metrics(run_dir)) < 6
    resumed: Path = launcher.trained("killed", "training.zero_stage=2")
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


def losses(run_dir: Path, steps: int = 20) -> list[float]:
    """Losses and gradient norm of each step, flat."""
    rows = [row for row in read_metrics(run_dir) if "denoising" in row]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))  # each once, also after a kill
    return [row[name] for row in rows[:steps] for name in ("denoising", "lisa", "gradient_norm")]


def exported(folder: Path) -> dict[str, torch.Tensor]:
    """The published side branch in a folder of weights."""
    return load_file(folder / "side_branch/diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("name", ["stage_0", "stage_1", "stage_2", "stage_3"])
def test_two_ranks_at_any_stage_give_the_losses_of_one_process(runs, alone, name):
    assert losses(runs / name) == pytest.approx(losses(alone), abs=1e-5)
    torch.testing.assert_close(exported(runs / name / "weights"), exported(alone / "weights"), rtol=0, atol=1e-5)


def test_two_ranks_with_muon_give_the_losses_of_one_process(launcher, runs, alone):
    one = launcher.folder / "muon_alone"
    Trainer(load_config(launcher.config, (*SIX, *MUON, "training.micro_batch_size=2", f"run_dir={one}"))).run()
    assert losses(runs / "muon", steps=6) == pytest.approx(losses(one, steps=6), abs=1e-5)
    assert losses(one, steps=6) != pytest.approx(losses(alone, steps=6), abs=1e-3)


def test_host_memory_gives_them_too(runs, alone):
    assert losses(runs / "offload") == pytest.approx(losses(alone, steps=3), abs=1e-5)


def test_two_ranks_go_on_from_the_checkpoint_of_one(runs, alone):
    assert losses(runs / "from_one") == pytest.approx(losses(alone), abs=1e-5)
    facts = json.loads((runs / "from_one/done.json").read_text(encoding="utf-8"))
    assert facts["ranks"] == 2 and facts["clips_per_step"] == 2
    left = {path.name for path in (runs / "from_one/checkpoints").iterdir() if path.is_dir()}
    assert left == {"step-00000018", "step-00000020"}  # nothing of the conversion


@pytest.mark.parametrize("stage", ["0", "1", "3"])
def test_one_rank_goes_on_from_the_checkpoint_of_two(launcher, runs, alone, tmp_path, caplog, stage):
    shutil.copytree(runs / f"stage_{stage}", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000020")
    overrides = (*TWENTY, f"training.zero_stage={stage}", "training.micro_batch_size=2", f"run_dir={tmp_path / 'run'}")
    trainer = Trainer(load_config(launcher.config, overrides))
    assert trainer.step == 18 and trainer.samples_seen == 36
    assert stage == "0" or "was written by 2 ranks and this run has 1: converting it" in caplog.text
    assert "clips now" not in caplog.text  # a step has as many clips as before
    trainer.run()
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), abs=1e-5)


def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(runs, killed):
    assert losses(killed) == losses(runs / "stage_2", steps=6)
    before = exported(runs / "stage_2/weights_at/step-00000006")
    torch.testing.assert_close(exported(killed / "weights"), before, rtol=0, atol=0)


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


def test_previews_of_fewer_clips_than_ranks_and_of_a_rest(runs):
    assert len(list((runs / "stage_0/previews").iterdir())) == 1
    assert len(list((runs / "stage_3/previews").iterdir())) == 1
    assert len(list((runs / "stage_1/previews").iterdir())) == 2 * 3  # after 10 and 20 steps
    for name, steps in (("stage_0", [20]), ("stage_1", [10, 20])):
        assert [row["step"] for row in read_metrics(runs / name) if "pck_0.1" in row] == steps


def test_no_extension_is_compiled(launcher, runs):
    assert not (launcher.folder / "extensions").exists()


def test_a_mistake_is_told_once_and_ends_with_status_2(launcher, killed):
    status, output = launcher.run("killed", *SIX, "training.zero_stage=2", "optimizer.lr=0.5")
    assert status == 2
    assert output.count("error: ") == 1 and "optimizer.lr: 0.0003 -> 0.5" in output
    assert "Traceback" not in output


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
    status, output = launcher.run("broken", *SIX, "backbone.name=own.broken")
    assert status == 1
    assert output.count("RuntimeError: broken on rank 1") == 1
    assert not (launcher.folder / "broken/done.json").exists()
