"""`lisa-video eval benchmark`: arms x seeds trained, scored at every kept checkpoint, and put into one report.

Every stage is a file or a finished run, so the same command goes on after a kill and does nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from eval.experiments.checkpoints import chosen_steps, learning_curves
from eval.experiments.compare import compare
from eval.json_files import write_json
from eval.report.learning_curves import LearningCurve, final_difference, speed_up
from eval.report.learning_page import learning_tables
from eval.report.page import HEADLINE_THRESHOLD
from eval.report.tables import markdown
from eval.runs.evaluation import Evaluation, Measures, evaluate_all, prepare
from eval.runs.generate import GenerationJob
from eval.runs.job_pool import side_by_side
from eval.runs.training_runs import TrainingRun, train_runs
from lisa_video.config.load import load_settings
from lisa_video.config.schema import Positive, Section
from lisa_video.data.manifest import file_digest
from lisa_video.pretraining.frozen_base import FrozenBase

Stage = Literal["inputs", "train", "sample", "score", "report"]
"""Of a benchmark, in their order: data and base; training; clips and whatever else wants a GPU; scores; the report."""
STAGES = get_args(Stage)


class Inputs(Section):
    """What is made before the first run, if it is not there: see `lisa_video.benchmark_inputs`."""

    clips: Positive = 2000  # of the demo data that the run config names as data.manifest
    seed: Annotated[int, Field(ge=0)] = 0  # of that data
    frozen_base: FrozenBase | None = None  # trained on it for backbone.path; null: that is there already


class BenchmarkConfig(Section):
    """An experiment: what differs between the arms, and what does not."""

    title: str
    note: str = ""  # limits of the experiment, for the report
    base: str  # run config of all arms, relative to the checkout
    inputs: Inputs | None = None  # null: data and frozen base are there already
    out: str  # folder of everything
    arms: Annotated[dict[str, list[str]], Field(min_length=1)]  # name -> overrides; the baseline first
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 1, 2)  # of training
    overrides: tuple[str, ...] = ()  # of all arms
    checkpoints: Positive = 8  # at even distances
    eval_clips: Annotated[int, Field(ge=2)] = 32
    detectors: tuple[str, ...] = ()  # of poses; empty: keypoint_net, and mediapipe where it is installed
    fvd: bool = False  # I3D, whose weights package must be installed
    num_processes: Positive = 2  # ranks of a training run
    sampling_processes: Positive | None = None  # one a checkpoint; null: as many
    scoring_processes: Positive | None = None  # that search for poses, one a checkpoint; null: as many as sample
    parallel_runs: Positive = 1  # training runs side by side on this machine
    sampling_batch: Positive | None = None  # clips sampled at once; null: 32 on a GPU, 4 on a CPU


def load_benchmark(path: Path, overrides: Sequence[str] = ()) -> BenchmarkConfig:
    """Read an experiment; it may extend another file, as run configs do.

    Args:
        path: YAML file.
        overrides: such as `seeds=[0]`.

    Raises:
        UserError: no such file, an unknown key, or a value that breaks a rule.
    """
    return load_settings(BenchmarkConfig, path, overrides)


def run_benchmark(config: BenchmarkConfig, *, manifest: str, last_stage: Stage = "report") -> Path | None:
    """Train, sample, score and report; returns the report. Data and frozen base must be there.

    Args:
        config: the experiment.
        manifest: data set of all arms.
        last_stage: where to stop; None is returned if that is before the report.

    Raises:
        UserError: a run failed or was started with other settings, or a measure cannot be loaded.
        SystemExit: see `train_runs`.
    """
    measures = Measures.chosen(config.detectors, fvd=config.fvd)
    runs = {arm: {seed: _training(config, arm, seed, manifest) for seed in config.seeds} for arm in config.arms}
    everything = [run for of_arm in runs.values() for run in of_arm.values()]
    if last_stage != "train":
        measures.check(everything[0].resolved.data.num_frames)  # before hours of training
    train_runs(everything, at_once=config.parallel_runs, num_processes=config.num_processes)
    if last_stage == "train":
        return None
    jobs = list(_jobs(config, [str(run.folder) for run in everything]))
    sampling = config.sampling_processes or config.num_processes
    side_by_side(partial(prepare, measures=measures), jobs, sampling, "sample and measure")
    if last_stage == "sample":
        return None
    searching = config.scoring_processes or sampling
    found = evaluate_all(jobs, measures, searching, "score")
    if last_stage == "score":
        return None
    floor = found[jobs[0]]
    scored = {
        arm: {seed: {0: floor} | _kept(found, str(run.folder)) for seed, run in of_arm.items()}
        for arm, of_arm in runs.items()
    }
    curves = learning_curves(scored, HEADLINE_THRESHOLD)
    out = Path(config.out) / "report.html"
    compare(
        [(arm, str(of_arm[config.seeds[0]].folder)) for arm, of_arm in runs.items()],
        out,
        measures=measures,
        num_clips=config.eval_clips,
        num_processes=searching,
        note=config.note,
        curves=curves,
    )
    write_json(Path(config.out) / "benchmark.json", _summary(config, manifest, curves))
    (Path(config.out) / "benchmark.md").write_text(markdown(learning_tables(curves)) + "\n", encoding="utf-8")
    return out


def _kept(found: Mapping[GenerationJob, Evaluation], run_dir: str) -> dict[int, Evaluation]:
    """The evaluations of a run's checkpoints, by step."""
    return {job.step: one for job, one in found.items() if job.run_dir == run_dir and job.step is not None}


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


def _summary(config: BenchmarkConfig, manifest: str, curves: Mapping[str, Sequence[LearningCurve]]) -> dict[str, Any]:
    """Every number of the curves, for programs and for plots of several experiments."""

    def numbers(curve: LearningCurve, baseline: LearningCurve) -> dict[str, Any]:
        low, high = curve.band()
        return {
            "arm": curve.arm, "overrides": config.arms[curve.arm], "steps": curve.steps.tolist(),
            "values": curve.values.tolist(), "low": low.tolist(), "high": high.tolist(),
            "values_per_seed": curve.values_per_seed.tolist(), "speed_up": asdict(speed_up(baseline, curve)),
            "final_difference": asdict(final_difference(baseline, curve)),
        }  # fmt: skip

    return {
        "config": config.model_dump(mode="json"),
        "manifest_digest": file_digest(manifest),
        "threshold": HEADLINE_THRESHOLD,
        "measures": [
            {"measure": measure, "arms": [numbers(curve, of_arms[0]) for curve in of_arms]}
            for measure, of_arms in curves.items()
        ],
    }
