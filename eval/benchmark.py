"""`lisa-video eval benchmark`: arms x seeds trained, scored at every kept checkpoint, and put into one report.

Every stage is a file or a finished run, so the same command goes on after a kill and does nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError

from eval.checkpoints import chosen_steps, learning_curve, score_checkpoints, score_floor
from eval.generate import GenerationJob, generate
from eval.held_out_loss import held_out_loss
from eval.learning_curves import LearningCurve, speed_up
from eval.report import HEADLINE_THRESHOLD
from eval.run import compare
from eval.scores import Scores
from eval.training_runs import TrainingRun, train_runs
from lisa_video.config.schema import Positive, Section
from lisa_video.errors import UserError

Stage = Literal["train", "sample", "score", "report"]
"""Of a benchmark, in their order: training; clips and whatever else wants a GPU; scores; the report."""
STAGES = get_args(Stage)


class BenchmarkConfig(Section):
    """An experiment: what differs between the arms, and what does not."""

    title: str
    note: str = ""  # limits of the experiment, for the report
    base: str  # run config of all arms, relative to the checkout
    out: str  # folder of everything
    arms: Annotated[dict[str, list[str]], Field(min_length=1)]  # name -> overrides; the baseline first
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 1, 2)  # of training
    overrides: tuple[str, ...] = ()  # of all arms
    checkpoints: Positive = 8  # at even distances
    eval_clips: Annotated[int, Field(ge=2)] = 32
    num_processes: Positive = 2  # ranks of a training run, and processes of sampling
    parallel_runs: Positive = 1  # training runs side by side on this machine
    sampling_batch: Positive | None = None  # clips sampled at once; null: 32 on a GPU, 4 on a CPU


def load_benchmark(path: Path) -> BenchmarkConfig:
    """Read an experiment.

    Raises:
        UserError: no such file, or a key that is wrong.
    """
    if not path.is_file():
        raise UserError("no such benchmark config", where=path, remedy="use configs/benchmark/small.yaml or your own")
    try:
        return BenchmarkConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")), strict=False)
    except (ValidationError, yaml.YAMLError) as error:
        what = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ("file",), "msg": str(error)}
        key = ".".join(str(part) for part in what["loc"])
        raise UserError(f"{key}: {what['msg']}", where=path, remedy="mend this key; see eval/benchmark.py") from error


def run_benchmark(
    config: BenchmarkConfig, *, manifest: str, detector_dir: str, last_stage: Stage = "report"
) -> Path | None:
    """Train, sample, score and report; returns the report.

    Args:
        config: the experiment.
        manifest: data set of all arms.
        detector_dir: keypoint network that finds the poses again.
        last_stage: where to stop; None is returned if that is before the report.

    Raises:
        UserError: a run failed or was started with other settings.
        SystemExit: see `train_runs`.
    """
    runs = {arm: {seed: _training(config, arm, seed, manifest) for seed in config.seeds} for arm in config.arms}
    everything = [run for arm in runs.values() for run in arm.values()]
    train_runs(everything, at_once=config.parallel_runs, num_processes=config.num_processes)
    if last_stage == "train":
        return None
    for job in _jobs(config, [str(run.folder) for run in everything]):
        generate(job, config.num_processes)
        if job.source != "codec":
            held_out_loss(job)
    if last_stage == "sample":
        return None
    curves, finals, floor = [], [], None
    for arm in config.arms:
        scored: dict[int, dict[int, Scores]] = {}
        for seed in config.seeds:
            run_dir = str(runs[arm][seed].folder)
            job = GenerationJob(run_dir, config.eval_clips)
            floor = floor or score_floor(job, detector_dir, config.num_processes)
            steps = chosen_steps(run_dir)
            scored[seed] = {0: floor} | score_checkpoints(job, steps, detector_dir, config.num_processes)
        finals.append((arm, str(runs[arm][config.seeds[0]].folder)))
        curves.append(learning_curve(arm, scored, HEADLINE_THRESHOLD))
    out = Path(config.out) / "report.html"
    compare(
        finals,
        out,
        detector_dir=detector_dir,
        num_clips=config.eval_clips,
        num_processes=config.num_processes,
        note=config.note,
        curves=curves,
    )
    _write_summary(Path(config.out) / "benchmark.json", config, curves)
    return out


def _jobs(config: BenchmarkConfig, run_dirs: Sequence[str]) -> Iterator[GenerationJob]:
    """Everything that is sampled: floor, ceiling, and every kept checkpoint."""
    for source in ("uncontrolled", "codec"):
        yield GenerationJob(run_dirs[0], config.eval_clips, source=source, group=config.sampling_batch)
    for run_dir in run_dirs:
        for step in chosen_steps(run_dir):
            yield GenerationJob(run_dir, config.eval_clips, step=step, group=config.sampling_batch)


def _training(config: BenchmarkConfig, arm: str, seed: int, manifest: str) -> TrainingRun:
    """One run; the arms differ in their own overrides only."""
    folder = Path(config.out) / "runs" / arm / f"seed-{seed}"
    overrides = [*config.overrides, f"run_dir={folder}", f"data.manifest={manifest}", f"seed={seed}"]
    overrides += config.arms[arm]
    run = TrainingRun(Path(config.base), tuple(overrides))
    every = -(-run.resolved.training.max_steps // config.checkpoints)
    return TrainingRun(run.config, (*overrides, f"training.export_every={every}"))


def _write_summary(path: Path, config: BenchmarkConfig, curves: list[LearningCurve]) -> None:
    """Every number of the curves, for programs and for plots of several experiments."""
    arms: list[dict[str, Any]] = []
    for curve in curves:
        low, high = curve.band()
        arms.append({
            "arm": curve.arm, "overrides": config.arms[curve.arm], "steps": curve.steps.tolist(),
            "pck": curve.accuracy.tolist(), "low": low.tolist(), "high": high.tolist(),
            "pck_per_seed": curve.accuracy_per_seed.tolist(), "speed_up": asdict(speed_up(curves[0], curve)),
        })  # fmt: skip
    summary = {"config": config.model_dump(mode="json"), "threshold": HEADLINE_THRESHOLD, "arms": arms}
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
