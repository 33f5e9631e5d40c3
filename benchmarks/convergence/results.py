"""From what a race kept to numbers: learning curves with bands, and speed-ups with intervals."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.convergence.figure import draw_curves
from benchmarks.convergence.race import SHARED
from benchmarks.convergence.records import FLOOR, Records, common_steps, read_seeds
from benchmarks.convergence.samples import print_samples, score_samples
from eval.experiments.benchmark import BenchmarkConfig
from eval.json_files import write_json
from eval.report.learning_curves import (
    Difference,
    LearningCurve,
    SpeedUp,
    above_floor,
    difference,
    final_difference,
    speed_up,
)
from eval.runs.evaluation import Measures
from eval.runs.generate import held_out
from lisa_video.config.load import load_config
from lisa_video.data.batch import Clip, SampleKey
from lisa_video.data.manifest import file_digest
from lisa_video.errors import UserError
from lisa_video.pose.accuracy import count_correct
from lisa_video.pose.keypoints import Keypoints

THRESHOLD = 0.1
PCK, LOSS, GAP = f"PCK@{THRESHOLD:g}", "held-out loss", "pose gap"
Kept = Mapping[str, np.ndarray]
"""What `train` wrote at a checkpoint."""
Sums = tuple[np.ndarray, np.ndarray]
"""(N,) part and (N,) whole of each clip; a score is the sum of the parts over that of the frozen network's wholes."""


def write_results(
    settings: BenchmarkConfig,
    manifest: str,
    out: Path,
    figure: Path,
    skip: int = 0,
    only: Collection[int] | None = None,
    samples: bool = False,
) -> None:
    """Score every checkpoint that an arm has with all seeds, write one JSON file and a PNG.

    An arm may have ended sooner than another: they are compared at the steps that both have and at their ends, and how
    much sooner one has what the other ends with is told all the same.

    Args:
        settings: of the experiment.
        manifest: data set.
        out: JSON file.
        figure: PNG file.
        skip: first held-out clips that are left out.
        only: training seeds; default: all.
        samples: score the samples of the last checkpoint by the experiment's other measures too, see `score_samples`;
            of the arms that have it.

    Raises:
        UserError: an arm has no checkpoint with all seeds, they were not trained alike, or see `score_samples`.
    """
    arms, clips = list(settings.arms), _held_out(settings, manifest)
    truth = {clip.clip_id: clip.keypoints for clip in clips}
    known = read_seeds(Path(settings.out), arms)
    seeds = {number: records for number, records in known.items() if only is None or number in only}
    steps = {arm: common_steps(seeds, arm) for arm in arms}
    for arm in arms:
        if not steps[arm]:
            remedy = "run `train` for some seeds first, for all arms"
            raise UserError(
                f"there is no step at which {arm} was examined with every seed", where=settings.out, remedy=remedy
            )
    _require_alike(seeds, arms)
    curves = {
        PCK: [_curve(seeds, arm, steps[arm], partial(_joints, truth), skip, percent=True) for arm in arms],
        LOSS: [_curve(seeds, arm, steps[arm], _errors, skip, lower_is_better=True) for arm in arms],
        GAP: [_curve(seeds, arm, steps[arm], _gaps, skip, percent=True) for arm in arms],
    }
    summary = {
        "title": settings.title,
        "note": settings.note,
        "protocol": {
            PCK: "share of joints within a tenth of the box diagonal from the driving keypoints, over all clips",
            LOSS: "mean squared error of held-out clips at the middles of 5 equally likely ranges of the noise level",
            GAP: "held-out loss with another clip's poses minus that with the right ones, over the frozen network's",
            "detector": "lisa_video/assets/keypoint_net",
            "held_out_clips": len(truth) - skip,
            "first_clips_left_out": skip,
            "manifest_digest": file_digest(manifest),
            "seeds": list(seeds),
            "interval": "95 % bootstrap over seeds and clips together",
            "trained_by": "python -m benchmarks.convergence (arms of a seed share clips, noise and the frozen pass)",
        },
        "runs": [{arm: records.facts(arm) for arm in arms} for records in seeds.values()],
        "arms": [
            {
                "arm": arm, "overrides": settings.arms[arm], "levels": _levels(seeds, arm, steps[arm]),
                "losses": [records.losses(arm) for records in seeds.values()],
                **{name: _numbers(place, of) for name, of in curves.items()},
            }
            for place, arm in enumerate(arms)
        ],
    }  # fmt: skip
    if samples:
        summary["samples"] = _last_samples(settings, seeds, steps, clips[skip:])
        print_samples(summary["samples"])
    write_json(out, summary)
    figure.parent.mkdir(parents=True, exist_ok=True)
    draw_curves(curves, settings.title, figure)
    _print(curves)


def _require_alike(seeds: dict[int, Records], arms: list[str]) -> None:
    """Arms are trained by separate calls, so settings may have been changed in between.

    For how long a race was meant does not count: at a constant rate no arm knows, and where the rate falls an arm is
    compared at its own end. Nor does the stage of ZeRO, which a race has no use for.
    """
    runs = {(records.folder / arm): records.facts(arm)["run"] for records in seeds.values() for arm in arms}
    for run in runs.values():
        for unseen in ("max_steps", "zero_stage"):
            run["training"].pop(unseen)
    first, *others = runs
    for folder in others:
        for section in SHARED:
            if runs[folder][section] != runs[first][section]:
                remedy = "remove the folder of the one that is out of date, and train it again"
                raise UserError(f"was trained with another {section} than {first}", where=str(folder), remedy=remedy)


def _last_samples(
    settings: BenchmarkConfig, seeds: dict[int, Records], steps: dict[str, list[int]], clips: list[Clip]
) -> dict[str, Any]:
    """Further measures of the arms that went furthest."""
    last = max(of_arm[-1] for of_arm in steps.values())
    furthest = [arm for arm, of_arm in steps.items() if of_arm[-1] == last]
    folders = {arm: [records.folder / arm for records in seeds.values()] for arm in furthest}
    folders[FLOOR] = [next(iter(seeds.values())).folder / FLOOR]  # the same for all seeds
    return score_samples(folders, last, clips, Measures.chosen(settings.detectors, fvd=settings.fvd), THRESHOLD)


def _numbers(place: int, curves: list[LearningCurve]) -> dict[str, Any]:
    curve = curves[place]
    low, high = curve.band()
    return {
        "steps": curve.steps.tolist(), "value": curve.values.tolist(), "low": low.tolist(), "high": high.tolist(),
        "per_seed": curve.values_per_seed.tolist(),
        "over_floor": _listed(above_floor(curve)),
        "over": {other.arm: _pair(other, curve) for other in curves if other is not curve},
    }  # fmt: skip


def _listed(difference: Difference) -> dict[str, list[float]]:
    return {name: ends.tolist() for name, ends in difference._asdict().items()}


def _pair(baseline: LearningCurve, arm: LearningCurve) -> dict[str, Any]:
    horizons = baseline.steps[1:].tolist()
    return {
        "difference": _listed(difference(baseline, arm)),
        "final_difference": asdict(final_difference(baseline, arm)),
        "speed_up": asdict(speed_up(baseline, arm)),
        "speed_up_if_ended_at": {
            step: asdict(speed_up(baseline.until(step), arm.until(step)))["ratio"] for step in horizons
        },
    }


def _print(curves: dict[str, list[LearningCurve]]) -> None:
    for measure, (baseline, *others) in curves.items():
        print(f"{measure} at step {baseline.steps[-1]}: {baseline.arm} {baseline.values[-1]:.4f}")
        for curve in others:
            gap, gain = final_difference(baseline, curve), speed_up(baseline, curve)
            sooner = "" if curve.steps[-1] == baseline.steps[-1] else f"at step {curve.steps[-1]} "
            print(
                f"  {curve.arm:24s} {sooner}{curve.values[-1]:.4f}, difference {gap.value:+.4f} "
                f"[{gap.low:+.4f}, {gap.high:+.4f}], steps {_times(gain)}"
            )


def _times(result: SpeedUp) -> str:
    if result.ratio is None:
        return f"to the same value: never, {100 * result.reached:.0f} % of draws get there"
    return f"{result.ratio.value:.2f} [{result.ratio.low:.2f}, {result.ratio.high:.2f}] times fewer"


def _held_out(settings: BenchmarkConfig, manifest: str) -> list[Clip]:
    config = load_config(Path(settings.base), [*settings.overrides, f"data.manifest={manifest}"])
    dataset = held_out(config)
    return [dataset[SampleKey(index, index)] for index in range(min(settings.eval_clips, len(dataset)))]


def _joints(truth: dict[str, Keypoints], kept: Kept) -> Sums:
    """Joints found within the threshold in each clip, and joints to be found."""
    person = np.zeros(1, np.int64)
    counts = [
        count_correct(Keypoints(xy[:, None], score[:, None], person), truth[name], (THRESHOLD,))
        for name, xy, score in zip(kept["ids"].tolist(), kept["xy"], kept["score"], strict=True)
    ]
    return np.array([int(c.correct.sum()) for c in counts]), np.array([int(c.visible.sum()) for c in counts])


def _errors(kept: Kept) -> Sums:
    """Mean error over noise levels of each clip, each counting once."""
    errors = kept["errors"].mean(axis=1)
    return errors, np.ones(len(errors), np.int64)


def _gaps(kept: Kept) -> Sums:
    """What the right poses are worth to each clip, and its error; where that is the frozen network's, it counts."""
    misled, right = (kept[name].mean(axis=1) for name in ("misled", "errors"))
    return misled - right, right


def _read(path: Path, measure: Callable[[Kept], Any]) -> Any:
    with np.load(path) as kept:
        return measure(kept)


def _curve(
    seeds: dict[int, Records], arm: str, steps: list[int], measure: Callable[[Kept], Sums], skip: int, *,
    percent: bool = False, lower_is_better: bool = False,
) -> LearningCurve:  # fmt: skip
    parts, whole = [], np.zeros(0)
    for records in seeds.values():
        files = [records.found(FLOOR, 0), *(records.found(arm, step) for step in steps)]
        sums = [_read(file, measure) for file in files]
        parts.append([part[skip:] for part, _ in sums])
        whole = sums[0][1][skip:]  # of the frozen network
    rising = np.array([0, *steps])
    return LearningCurve(
        arm, rising, tuple(seeds), np.array(parts), whole, lower_is_better=lower_is_better, percent=percent
    )


def _levels(seeds: dict[int, Records], arm: str, steps: list[int]) -> list[list[float]]:
    """Held-out error over that of the frozen network by checkpoint and noise level, mean over seeds; 1: no control."""
    ratios = []
    for records in seeds.values():
        frozen = _read(records.found(FLOOR, 0), lambda kept: kept["errors"].mean(axis=0))
        found = [_read(records.found(arm, step), lambda kept: kept["errors"].mean(axis=0)) for step in steps]
        ratios.append([errors / frozen for errors in found])
    mean: list[list[float]] = np.mean(ratios, axis=0).round(5).tolist()
    return mean
