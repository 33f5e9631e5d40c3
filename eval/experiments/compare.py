"""Several runs, the frozen network alone and the true frames, evaluated and put into one report."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.pose_accuracy.scores import Scores
from eval.report.arms import ArmResult, ShownClip
from eval.report.learning_page import Curves
from eval.report.page import write_report
from eval.runs.evaluation import Evaluation, Measures, evaluate
from eval.runs.generate import GenerationJob, Source, held_out_clips, load_generated
from lisa_video.errors import UserError
from lisa_video.training.metrics import read_metrics

_SHOWN_OF_EACH = 2


def compare(
    runs: Sequence[tuple[str, str]],
    out_html: Path,
    *,
    measures: Measures,
    num_clips: int,
    num_processes: int,
    note: str,
    curves: Curves | None = None,
    overrides: Sequence[str] = (),
) -> Path:
    """Evaluate runs, the frozen network alone, and the true frames through the VAE, and write one report.

    Args:
        runs: (name, run_dir), baseline first, LISA last.
        out_html: the report; its numbers go to the same name with `.json`.
        measures: by what to score.
        num_clips: held-out clips.
        num_processes: for sampling and the search for poses.
        note: a paragraph on the experiment's limits.
        curves: of the arms over their kept checkpoints.
        overrides: settings of all runs to change, such as `sampling.num_steps=50`.

    Raises:
        UserError: a run is not finished, or the runs' protocols differ.
    """
    jobs = [(name, GenerationJob(run_dir, num_clips, overrides=tuple(overrides))) for name, run_dir in runs]
    facts = [_facts(job) for _, job in jobs]  # before hours of sampling
    first = jobs[0][1]
    measures.check(first.config.data.num_frames)
    truth = replace(first, source="truth")
    found = [evaluate(job, measures, num_processes, truth=truth) for _, job in jobs]
    places = shown_places(found[-1].poses[0])
    arms = [_arm(name, job, one, done, places) for (name, job), one, done in zip(jobs, found, facts, strict=True)]

    def reference(name: str, source: Source) -> ArmResult:
        return ArmResult(name, evaluate(replace(first, source=source), measures, num_processes, truth=truth))

    floor, ceiling = reference("No control", "uncontrolled"), reference("Truth through the VAE", "codec")
    shown = shown_clips(first, places)
    out_html.parent.mkdir(parents=True, exist_ok=True)
    write_report(out_html, arms, floor, shown, ceiling=ceiling, note=note, curves=curves or {})
    return out_html


def _facts(job: GenerationJob) -> dict[str, Any]:
    """What the run wrote when it was done."""
    path = Path(job.run_dir) / "done.json"
    if not path.is_file():
        raise UserError(
            "no finished run: no done.json",
            where=job.run_dir,
            remedy="finish it with `lisa-video train`, or name the run_dir of a finished run",
        )
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


def _arm(name: str, job: GenerationJob, found: Evaluation, facts: dict[str, Any], shown: Collection[str]) -> ArmResult:
    run_dir, folder = Path(job.run_dir), job.folder
    return ArmResult(
        name=name,
        evaluation=found,
        videos={clip_id: load_generated(folder, clip_id) for clip_id in shown},
        metrics=read_metrics(run_dir),
        steps=facts["step"],
        training_seconds=facts["seconds"],
        parameters=facts["parameters"]["branch"] + facts["parameters"]["decoder"],
        config_yaml=(run_dir / "config.yaml").read_text(encoding="utf-8"),
    )


def shown_clips(job: GenerationJob, places: Mapping[str, str]) -> list[ShownClip]:
    """The clips of a gallery.

    Args:
        job: whose held-out clips they are.
        places: see `shown_places`.
    """
    clips = {clip.clip_id: clip for clip in held_out_clips(job.config, job.num_clips) if clip.clip_id in places}
    return [
        ShownClip(clip_id, clips[clip_id].array, clips[clip_id].keypoints, clips[clip_id].fps, place)
        for clip_id, place in places.items()
    ]


def shown_places(scores: Scores) -> dict[str, str]:
    """The clips of the gallery, two each from the worst, the middle and the best by share of joints found.

    Nobody chooses what is shown. The threshold is the middle one of the protocol; equal shares keep their order.
    """
    place = len(scores.thresholds) // 2
    order = sorted(scores.clips, key=lambda clip: clip.correct[place] / max(1, clip.visible))
    ids, half = [clip.clip_id for clip in order], len(order) // 2
    chosen = {clip_id: "best" for clip_id in ids[-_SHOWN_OF_EACH:]}
    chosen |= {clip_id: "median" for clip_id in ids[max(0, half - 1) : half + 1]}
    chosen |= {clip_id: "worst" for clip_id in ids[:_SHOWN_OF_EACH]}
    return {clip_id: chosen[clip_id] for clip_id in ids if clip_id in chosen}
