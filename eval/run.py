"""Evaluate runs: sample held-out clips, score them, and put several runs into one report."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eval.arms import ArmResult, ShownClip
from eval.features import KeypointNetFeatures
from eval.generate import GenerationJob, Source, generate, held_out_clips, load_generated
from eval.learning_curves import LearningCurve
from eval.report import write_report
from eval.sample_protocol import sample_protocol
from eval.scores import Scores, load_scores, save_scores
from eval.scoring import GeneratedClip, score_clips
from lisa_video.errors import UserError
from lisa_video.pose.detectors.keypoint_net import KeypointNetDetector
from lisa_video.training.metrics import read_metrics

_SHOWN_OF_EACH = 2


def evaluate(job: GenerationJob, detector_dir: str, num_processes: int = 1) -> Scores:
    """Sample and score a run's held-out clips, or read the scores if that was done before.

    Args:
        job: what to sample.
        detector_dir: keypoint network for pose accuracy, also the extractor of the Frechet features.
        num_processes: over which sampling is spread.

    Returns:
        The scores; also written to a `scores-*.json` beside the clips.

    Raises:
        UserError: no such run, no weights yet, no such detector, or nothing to score.
    """
    detector = KeypointNetDetector.from_pretrained(detector_dir)
    folder, config = generate(job, num_processes), job.config
    protocol = sample_protocol(job)
    path = folder / f"scores-{job.num_clips}-{detector.digest.removeprefix('sha256:')[:8]}.json"
    if path.is_file():
        known = load_scores(path)
        if protocol.items() <= known.protocol.items():
            return known
    clips = (
        GeneratedClip(clip.clip_id, load_generated(folder, clip.clip_id), clip.array, clip.keypoints)
        for clip in tqdm(held_out_clips(config, job.num_clips), desc=f"score {folder.name}", unit="clip")
    )
    scores = score_clips(clips, detector, KeypointNetFeatures.from_pretrained(detector_dir), protocol=protocol)
    save_scores(path, scores)
    return scores


def compare(
    runs: Sequence[tuple[str, str]],
    out_html: Path,
    *,
    detector_dir: str,
    num_clips: int,
    num_processes: int,
    note: str,
    curves: Sequence[LearningCurve] = (),
) -> Path:
    """Evaluate runs, the frozen network alone, and the true frames through the VAE, and write one report.

    Args:
        runs: (name, run_dir), baseline first, LISA last.
        out_html: the report; its numbers go to the same name with `.json`.
        detector_dir: see `evaluate`.
        num_clips: held-out clips.
        num_processes: for sampling.
        note: a paragraph on the experiment's limits.
        curves: of the arms over their kept checkpoints, the baseline's first.

    Raises:
        UserError: a run is not finished, or the runs' protocols differ.
    """
    jobs = [(name, GenerationJob(run_dir, num_clips)) for name, run_dir in runs]
    facts = [_facts(job) for _, job in jobs]  # before hours of sampling
    scores = [evaluate(job, detector_dir, num_processes) for _, job in jobs]
    first, places = jobs[0][1], shown_places(scores[-1])
    arms = [_arm(name, job, score, done, places) for (name, job), score, done in zip(jobs, scores, facts, strict=True)]

    def reference(name: str, source: Source) -> ArmResult:
        job = GenerationJob(first.run_dir, num_clips, source=source)
        return ArmResult(name, evaluate(job, detector_dir, num_processes))

    floor, ceiling = reference("No control", "uncontrolled"), reference("Truth through the VAE", "codec")
    found = {clip.clip_id: clip for clip in held_out_clips(first.config, num_clips) if clip.clip_id in places}
    shown = [
        ShownClip(clip_id, found[clip_id].array, found[clip_id].keypoints, found[clip_id].fps, place)
        for clip_id, place in places.items()
    ]
    out_html.parent.mkdir(parents=True, exist_ok=True)
    write_report(out_html, arms, floor, shown, ceiling=ceiling, note=note, curves=curves)
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


def _arm(name: str, job: GenerationJob, scores: Scores, facts: dict[str, Any], shown: Collection[str]) -> ArmResult:
    run_dir, folder = Path(job.run_dir), job.folder
    return ArmResult(
        name=name,
        scores=scores,
        videos={clip_id: load_generated(folder, clip_id) for clip_id in shown},
        metrics=read_metrics(run_dir),
        steps=facts["step"],
        training_seconds=facts["seconds"],
        parameters=facts["parameters"]["branch"] + facts["parameters"]["decoder"],
        config_yaml=(run_dir / "config.yaml").read_text(encoding="utf-8"),
    )


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
