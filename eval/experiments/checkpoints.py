"""A run's kept checkpoints, scored one after the other: what a learning curve is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from eval.experiments.compare import compare
from eval.pose_accuracy.scores import threshold_key
from eval.report.arms import ArmResult, require_comparable
from eval.report.learning_curves import LearningCurve
from eval.report.page import HEADLINE_THRESHOLD
from eval.report.tables import detector_name
from eval.runs.evaluation import Evaluation, Measures, evaluate_all
from eval.runs.generate import GenerationJob
from eval.runs.scoring import Distance
from lisa_video.errors import UserError
from lisa_video.models.weights import kept_steps


def chosen_steps(run_dir: str | Path, wanted: Sequence[int] = ()) -> list[int]:
    """The kept steps of a run that were asked for; all of them if none was.

    Raises:
        UserError: the run kept no weights, or not those of a step asked for.
    """
    kept = kept_steps(run_dir)
    if missing := sorted(set(wanted) - set(kept)):
        raise UserError(
            f"no weights of step {', '.join(map(str, missing))}; kept: {', '.join(map(str, kept)) or 'none'}",
            where=run_dir,
            remedy="train with training.export_every=N, or ask for steps that were kept",
        )
    if not kept:
        raise UserError("no kept weights", where=run_dir, remedy="train with training.export_every=N")
    return sorted(set(wanted)) or kept


def score_checkpoints(
    job: GenerationJob, steps: Sequence[int], measures: Measures, num_processes: int = 1
) -> dict[int, Evaluation]:
    """Scores by step; what was scored before is read, so a killed evaluation goes on."""
    jobs = {step: replace(job, step=step) for step in steps}
    found = evaluate_all(list(jobs.values()), measures, num_processes, "score")
    return {step: found[one] for step, one in jobs.items()}


def compare_runs(
    runs: Sequence[tuple[str, str]],
    out_html: Path,
    *,
    measures: Measures,
    num_clips: int,
    num_processes: int,
    overrides: Sequence[str] = (),
) -> Path:
    """`compare`, with learning curves if the runs share a seed and the steps at which they kept weights.

    Args:
        runs: (name, run_dir), baseline first.
        out_html: the report.
        measures: by what to score.
        num_clips: held-out clips.
        num_processes: for sampling and the search for poses.
        overrides: settings of all runs to change, such as `sampling.num_steps=50`.

    Raises:
        UserError: a run is not finished, or protocols differ.
    """
    jobs = {name: GenerationJob(run_dir, num_clips, overrides=tuple(overrides)) for name, run_dir in runs}
    steps = {tuple(kept_steps(job.run_dir)) for job in jobs.values()}
    seeds = {job.config.seed for job in jobs.values()}
    curves: dict[str, list[LearningCurve]] = {}
    if len(jobs) > 1 and len(steps) == len(seeds) == 1 and steps != {()}:
        first = next(iter(jobs.values()))
        measures.check(first.config.data.num_frames)
        floor = replace(first, source="uncontrolled")  # step 0 of every run, since a new branch changes nothing
        kept = {name: {step: replace(job, step=step) for step in kept_steps(job.run_dir)} for name, job in jobs.items()}
        everything = [floor, *(one for of_run in kept.values() for one in of_run.values())]
        found = evaluate_all(everything, measures, num_processes, "score checkpoints")
        scored = {
            name: {jobs[name].config.seed: {0: found[floor]} | {step: found[one] for step, one in of_run.items()}}
            for name, of_run in kept.items()
        }
        curves = learning_curves(scored, HEADLINE_THRESHOLD)
    return compare(
        runs,
        out_html,
        measures=measures,
        num_clips=num_clips,
        num_processes=num_processes,
        note="",
        curves=curves,
        overrides=overrides,
    )


Runs = Mapping[int, Mapping[int, Evaluation]]
"""Training seed -> step -> what was found; the same steps for every seed, with 0 among them."""


def learning_curves(arms: Mapping[str, Runs], threshold: float) -> dict[str, list[LearningCurve]]:
    """Join the scored checkpoints of all arms' runs: measure -> a curve for each arm.

    Args:
        arms: name -> its runs; the baseline first.
        threshold: of PCK.

    Raises:
        UserError: protocols or steps differ between the runs.
    """
    curves: dict[str, list[LearningCurve]] = {}
    for arm, runs in arms.items():
        steps = sorted(next(iter(runs.values())))
        if other := next((seed for seed, scores in runs.items() if sorted(scores) != steps), None):
            raise UserError(
                f"{arm}: seed {other} was scored at steps {sorted(runs[other])}, another one at {steps}",
                remedy="score all runs of an arm at the same steps",
            )
    require_comparable(
        [ArmResult(arm, one) for arm, runs in arms.items() for run in runs.values() for one in run.values()]
    )
    for arm, runs in arms.items():
        steps = sorted(next(iter(runs.values())))
        grid = [[runs[seed][step] for step in steps] for seed in runs]
        for measure, (part, whole, lower) in _measures(grid, threshold).items():
            curve = LearningCurve(arm, np.array(steps), tuple(runs), part, whole, lower, percent=not lower)
            curves.setdefault(measure, []).append(curve)
    return curves


def _measures(grid: list[list[Evaluation]], threshold: float) -> dict[str, tuple[np.ndarray, np.ndarray, bool]]:
    """Measure -> sums (R, S, N), their divisors (N,), and whether lower is better; of seeds x steps."""
    first = grid[0][0]
    found: dict[str, tuple[np.ndarray, np.ndarray, bool]] = {}
    for place, scores in enumerate(first.poses):
        key = list(scores.pck).index(threshold_key(threshold))
        correct = [[[clip.correct[key] for clip in one.poses[place].clips] for one in row] for row in grid]
        visible = np.array([clip.visible for clip in scores.clips])
        found[f"PCK@{threshold:g} by {detector_name(scores)}"] = np.array(correct), visible, False
    one_number = np.ones(1, np.int64)
    for place, distance in enumerate(first.distances):
        values = np.array([[one.distances[place].frechet.value for one in row] for row in grid])
        found[_distance_name(distance)] = values[..., None], one_number, True
    losses = [[one.loss for one in row] for row in grid]
    if (loss := losses[0][0]) is not None:
        values = np.array([[one.array for one in row if one is not None] for row in losses])  # (R,S,N,Q)
        clips = np.ones(values.shape[2], np.int64)
        found["Held-out loss"] = values.mean(axis=3), clips, True
        gaps = np.array([[one.gaps for one in row if one is not None] for row in losses])
        found["Pose gap"] = gaps, loss.frozen_means, False
        for level, sigma in enumerate(loss.sigmas):
            found[f"Held-out loss at sigma {sigma:.2g}"] = values[..., level], clips, True
    return found


def _distance_name(distance: Distance) -> str:
    features = str(distance.protocol["features"]["name"])
    return distance.label if distance.label == "FVD" else f"{distance.label} ({features.split(',')[0]})"
