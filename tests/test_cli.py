"""The `lisa-video` command: what it hands on, and how it ends. What stands behind it has tests of its own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from eval.experiments.benchmark import load_benchmark
from eval.runs.evaluation import Measures, evaluate
from eval.runs.generate import GenerationJob
from lisa_video import cli, launch, train
from lisa_video.cli import app
from lisa_video.config.load import load_config
from lisa_video.data.clips import check_manifest_fits
from lisa_video.data.manifest import Manifest
from lisa_video.pose.keypoints import load_keypoints
from lisa_video.training.run_dir import differences

ROOT = Path(__file__).parents[1]
RUNNER = CliRunner()


@pytest.fixture
def command(monkeypatch, capsys):
    """`command("eval", "run", "x")` -> (status, stdout, stderr) of the installed command, in this process."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lisa-video", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    "name", ["demo-data", "train", "sample", "eval run", "eval compare", "pretrain-demo", "quickstart"]
)
def test_help_names_the_command_in_an_example(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = RUNNER.invoke(app, [*name.split(), "--help"])
    assert result.exit_code == 0
    assert f"Example: lisa-video {name}" in re.sub(r"\x1b\[[\d;]*m", "", result.output)


def test_help_lists_every_command(monkeypatch):
    result = RUNNER.invoke(app, ["--help"])
    assert result.exit_code == 0
    for name in ("demo-data", "train", "sample", "eval", "pretrain-demo", "quickstart"):
        assert name in result.output
    assert str(ROOT) not in RUNNER.invoke(app, ["sample", "--help"]).output.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train none.yaml", "none.yaml: no such config file"),
        ("train {config} optimizer.learning=1", "unknown key optimizer.learning"),
        ("train {config} optimiser.lr=1", "did you mean optimizer?"),
        ("train {config} optimizer.lrr=1", "did you mean optimizer.lr?"),
        ("eval run nowhere", "nowhere: not a run"),
        ("eval compare nowhere elsewhere", "nowhere: not a run"),
        ("sample nowhere out.mp4 --reference a.png --pose b.mp4", "a.png: cannot read the picture"),
        ("demo-data {tmp}/data --size 33", "size is 33"),
        ("pretrain-demo none.jsonl {tmp}/out", "none.jsonl: no such manifest"),
        ("pretrain-demo none.jsonl {tmp}/out --stage vae", "--stage: no stage 'vae'"),
        ("quickstart {tmp}/out", "configs/quickstart.yaml: no such file"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(command, tiny_config_file, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    status, out, err = command(*arguments.format(config=tiny_config_file, tmp=tmp_path).split())
    lines = [line for line in err.splitlines() if line]
    assert status == 2 and out == ""
    assert len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0] and ". Remedy: " in lines[0]


@pytest.mark.parametrize("arguments", ["", "nothing", "train", "demo-data x --clips 0", "eval", "eval compare"])
def test_a_wrong_command_line_is_status_2(command, arguments):
    assert command(*arguments.split())[0] == 2


def test_a_fault_keeps_its_traceback(command, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a fault")

    monkeypatch.setattr(launch, "launch_training", broken)
    monkeypatch.setattr(sys, "argv", ["lisa-video", "train", "x.yaml"])
    with pytest.raises(RuntimeError, match="a fault"):
        cli.main()


@pytest.fixture
def started(monkeypatch) -> list[tuple[list[str], dict[str, str]]]:
    """Commands, with their environments, that would have been started; each "ends" with status 7."""
    commands = []

    def pretend(arguments, *, env=None, check):
        commands.append((arguments, env))
        return SimpleNamespace(returncode=7)

    def pretend_to_wait(arguments, *, env):
        commands.append((arguments, env))
        return SimpleNamespace(pid=os.getpid(), wait=lambda: 7)

    monkeypatch.setattr(launch.subprocess, "run", pretend)
    monkeypatch.setattr(launch.subprocess, "Popen", pretend_to_wait)
    return commands


def test_train_starts_the_launcher_and_hands_on_its_status(command, started, tiny_config_file):
    status, *_ = command("train", tiny_config_file, "lisa=null", "optimizer.lr=1e-4", "-n", 3)
    assert status == 7
    ((arguments, _),) = started
    assert arguments[:3] == [sys.executable, "-m", "deepspeed.launcher.runner"]
    assert arguments[arguments.index("--num_gpus") + 1] == "3"
    assert arguments[-5:] == ["--module", "lisa_video.train", str(tiny_config_file), "lisa=null", "optimizer.lr=1e-4"]


def test_without_a_gpu_ranks_get_one_thread_unless_told_otherwise(command, started, tiny_config_file, monkeypatch):
    monkeypatch.setattr(launch.os.path, "exists", lambda path: False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    command("train", tiny_config_file)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    command("train", tiny_config_file)
    assert [environment["OMP_NUM_THREADS"] for _, environment in started] == ["1", "5"]
    assert all(environment["DS_ACCELERATOR"] == "cpu" for _, environment in started)


def test_a_dry_run_starts_no_launcher(command, started, tiny_config_file):
    command("train", tiny_config_file, "--dry-run")
    ((arguments, _),) = started
    assert arguments == [sys.executable, "-m", "lisa_video.train", str(tiny_config_file), "--dry-run"]


def test_a_dry_run_prints_a_config(command, tiny_config_file, monkeypatch):
    def in_this_process(arguments, *, check):
        return SimpleNamespace(returncode=train.main(arguments[3:]))

    monkeypatch.setattr(launch.subprocess, "run", in_this_process)
    status, printed, _ = command("train", tiny_config_file, "--dry-run", "optimizer.lr=0.25")
    assert status == 0
    assert yaml.safe_load(printed)["optimizer"]["lr"] == 0.25 and "# clips: 9 to train on, 3 held out" in printed


def test_demo_data_makes_a_manifest(command, tmp_path):
    status, out, _ = command("demo-data", tmp_path / "data", "--clips", 1, "--size", 32, "--workers", 1)
    assert status == 0 and out == f"manifest: {tmp_path / 'data/manifest.jsonl'}\n"
    assert (tmp_path / "data/manifest.jsonl").is_file()


def test_eval_run_prints_the_scores(command, tiny_runs):
    status, out, _ = command("eval", "run", tiny_runs / "lisa", "--clips", 9, "--detector", "keypoint_net")
    assert status == 0
    found = evaluate(GenerationJob(str(tiny_runs / "lisa"), 9), Measures.chosen(("keypoint_net",)))
    assert f"| lisa | {100 * found.poses[0].pck['0.05'].value:.1f} % [" in out
    assert f"(protocol {found.poses[0].protocol_id})" in out and "\n3 clips; " in out  # no more are held out


@pytest.mark.parametrize(
    ("runs", "names"), [("a/one a/two", ["one", "two"]), ("a/run b/run", ["a/run", "b/run"]), (". a", ["here", "a"])]
)
def test_report_names_the_arms_after_their_folders(command, monkeypatch, tmp_path, runs, names):
    compared = []
    monkeypatch.setattr("eval.experiments.checkpoints.compare_runs", lambda named, *_, **__: compared.extend(named))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert command("eval", "compare", *runs.split())[0] == 0
    assert compared == list(zip(names, runs.split(), strict=True))


@pytest.mark.parametrize("path", sorted((ROOT / "configs/presets").glob("*.yaml")), ids=lambda path: path.stem)
def test_presets_change_how_it_is_trained_and_not_what(path):
    preset, svd = load_config(path), load_config(ROOT / "configs/svd_pose_lisa.yaml")
    same = {"run_dir", "training", "data"}
    assert preset.model_dump(exclude=same) == svd.model_dump(exclude=same)
    height, width, gpus = re.fullmatch(r"svd_(\d+)x(\d+)_(?:4x)?(\d)x\d+gb", path.stem).groups()
    ranks = int(gpus) * (4 if "_4x8x" in path.stem else 1)
    assert preset.data.model_dump(exclude={"size"}) == svd.data.model_dump(exclude={"size"})
    assert preset.data.size == (int(height), int(width))
    assert preset.training.micro_batch_size * preset.training.gradient_accumulation * ranks == 32
    assert path.name in (ROOT / "docs/memory.md").read_text(encoding="utf-8")


def test_the_two_svd_configs_differ_in_lisa_only():
    lisa, baseline = (load_config(ROOT / f"configs/svd_pose_{arm}.yaml") for arm in ("lisa", "baseline"))
    assert baseline.lisa is None and lisa.lisa is not None
    found = differences(lisa, baseline.model_copy(update={"lisa": lisa.lisa}))
    assert found == [] and lisa.run_dir != baseline.run_dir
    for section in ("preview", "sampling"):  # `differences` lets these change
        assert getattr(lisa, section) == getattr(baseline, section)
    assert (lisa.training.max_steps, lisa.data.num_workers) == (baseline.training.max_steps, baseline.data.num_workers)


def test_the_open_config_is_the_benchmarks_arm_at_svds_size():
    ours = load_config(ROOT / "configs/svd_pose_lisa_open.yaml")
    arm = load_benchmark(ROOT / "configs/benchmark/small.yaml").arms["lisa_open"]
    assert ours == load_config(ROOT / "configs/svd_pose_lisa.yaml", [*arm, f"run_dir={ours.run_dir}"])


def test_the_muon_config_is_the_benchmarks_arm_at_svds_size():
    ours = load_config(ROOT / "configs/svd_pose_lisa_muon.yaml")
    arm = load_benchmark(ROOT / "configs/benchmark/small_long.yaml").arms["lisa_muon"]
    rate = 2 * load_config(ROOT / "configs/svd_pose_lisa.yaml").optimizer.lr  # as in the benchmark, twice AdamW's
    assert ours == load_config(
        ROOT / "configs/svd_pose_lisa.yaml", [*arm, f"optimizer.lr={rate}", f"run_dir={ours.run_dir}"]
    )


def test_commands_of_the_readme_are_commands():
    """Each names a command that there is, options that it has, and settings that exist."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line for line in re.findall(r"^lisa-video .*$", text, flags=re.MULTILINE) if "CONFIG" not in line]
    assert len(lines) >= 7
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        names = words[:2] if words[0] == "eval" else words[:1]
        help_text = RUNNER.invoke(app, [*names, "--help"], env={"COLUMNS": "200"}).output
        assert all(word in help_text for word in words if word.startswith("--")), line
        if names == ["train"]:
            load_config(ROOT / words[1], [word for word in words[2:] if "=" in word])


def test_the_code_of_the_training_guide_makes_a_data_set(tiny_manifest, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/training.md").read_text(encoding="utf-8"), re.DOTALL)
    known = Manifest(tiny_manifest, "train")
    poses = {}
    for index in range(2):
        record = known[index]
        shutil.copy(known.resolve(record.video), tmp_path / f"clip{index}.mp4")
        keypoints = load_keypoints(known.resolve(record.keypoints))
        poses[f"clip{index}"] = (keypoints.xy, keypoints.score)
    scope: dict = {}
    exec(compile(code, "docs/training.md", "exec"), scope)
    scope["add_folder"](tmp_path, poses)
    for split in ("train", "val"):
        made = Manifest(tmp_path / "manifest.jsonl", split)
        assert len(made) == 1 and (made[0].width, made[0].num_frames) == (32, 8)
        assert check_manifest_fits(made, num_frames=4, frame_stride=2, size=(32, 32)) == 0
