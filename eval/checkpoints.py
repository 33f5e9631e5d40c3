"""A run's kept checkpoints, scored one after the other: what a learning curve is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from eval.generate import GenerationJob
from eval.learning_curves import LearningCurve
from eval.protocol import require_same_protocol
from eval.report import HEADLINE_THRESHOLD
from eval.run import compare, evaluate
from eval.scores import Scores, threshold_key
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
    job: GenerationJob, steps: Sequence[int], detector_dir: str, num_processes: int = 1
) -> dict[int, Scores]:
    """Scores by step; what was scored before is read, so a killed evaluation goes on."""
    return {step: evaluate(replace(job, step=step), detector_dir, num_processes) for step in steps}


def score_floor(job: GenerationJob, detector_dir: str, num_processes: int = 1) -> Scores:
    """Scores of the frozen network alone: step 0 of every run on it, since a new branch changes nothing."""
    return evaluate(replace(job, source="uncontrolled", step=None), detector_dir, num_processes)


def compare_runs(
    runs: Sequence[tuple[str, str]], out_html: Path, *, detector_dir: str, num_clips: int, num_processes: int
) -> Path:
    """`eval.run.compare`, with learning curves if the runs share a seed and the steps at which they kept weights.

    Args:
        runs: (name, run_dir), baseline first.
        out_html: the report.
        detector_dir: keypoint network that finds the poses again.
        num_clips: held-out clips.
        num_processes: for sampling.

    Raises:
        UserError: a run is not finished, or protocols differ.
    """
    jobs = {name: GenerationJob(run_dir, num_clips) for name, run_dir in runs}
    steps = {tuple(kept_steps(job.run_dir)) for job in jobs.values()}
    seeds = {job.config.seed for job in jobs.values()}
    curves = []
    if len(jobs) > 1 and len(steps) == len(seeds) == 1 and steps != {()}:
        floor = score_floor(next(iter(jobs.values())), detector_dir, num_processes)
        for name, job in jobs.items():
            scores = {0: floor} | score_checkpoints(job, kept_steps(job.run_dir), detector_dir, num_processes)
            curves.append(learning_curve(name, {job.config.seed: scores}, HEADLINE_THRESHOLD))
    return compare(
        runs, out_html, detector_dir=detector_dir, num_clips=num_clips, num_processes=num_processes, note="",
        curves=curves,
    )  # fmt: skip


def learning_curve(arm: str, runs: Mapping[int, Mapping[int, Scores]], threshold: float) -> LearningCurve:
    """Join the scored checkpoints of an arm's runs.

    Args:
        arm: its name.
        runs: training seed -> step -> scores; the same steps for every seed, with 0 among them.
        threshold: of PCK.

    Raises:
        UserError: protocols or steps differ between the runs.
    """
    steps = sorted(next(iter(runs.values())))
    if other := next((seed for seed, scores in runs.items() if sorted(scores) != steps), None):
        raise UserError(
            f"{arm}: seed {other} was scored at steps {sorted(runs[other])}, another one at {steps}",
            remedy="score all runs of an arm at the same steps",
        )
    everything = [runs[seed][step] for seed in runs for step in steps]
    require_same_protocol([scores.protocol for scores in everything])
    place = list(everything[0].pck).index(threshold_key(threshold))
    correct = [[[clip.correct[place] for clip in runs[seed][step].clips] for step in steps] for seed in runs]
    visible = [clip.visible for clip in everything[0].clips]
    return LearningCurve(arm, np.array(steps), tuple(runs), np.array(correct), np.array(visible))
