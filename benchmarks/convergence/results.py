"""From what a race kept to numbers: learning curves with bands, and speed-ups with intervals."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from eval.benchmark import BenchmarkConfig
from eval.learning_curves import LearningCurve, speed_up
from lisa_video.config.load import load_config
from lisa_video.data.batch import SampleKey
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.manifest import Manifest, file_digest
from lisa_video.pose.accuracy import count_correct
from lisa_video.pose.keypoints import Keypoints

THRESHOLD = 0.1


def write_results(settings: BenchmarkConfig, manifest: str, out: Path) -> None:
    """Score every checkpoint that all seeds have, and write one JSON file."""
    folder = Path(settings.out)
    seeds = sorted(int(path.parent.name.removeprefix("seed-")) for path in folder.glob("seed-*/done.json"))
    done = [json.loads((folder / f"seed-{seed}" / "done.json").read_text(encoding="utf-8")) for seed in seeds]
    truth = _truth(settings, manifest)
    arms = list(settings.arms)
    curves = {arm: _curve(folder, arm, seeds, truth) for arm in arms}
    baseline = curves[arms[0]]
    rows: list[dict[str, Any]] = []
    for arm, curve in curves.items():
        low, high = curve.band()
        rows.append({
            "arm": arm, "overrides": settings.arms[arm], "steps": curve.steps.tolist(),
            "pck": curve.accuracy.tolist(), "low": low.tolist(), "high": high.tolist(),
            "pck_per_seed": curve.accuracy_per_seed.tolist(),
            "held_out": _held_out(folder, arm, seeds, curve.steps),
            "losses": _losses(folder, arm, seeds),
            "speed_up": {other: asdict(speed_up(curves[other], curve)) for other in arms if other != arm},
        })  # fmt: skip
    summary = {
        "title": settings.title,
        "note": settings.note,
        "protocol": {
            "metric": f"PCK@{THRESHOLD:g} of the box diagonal against the driving keypoints, micro average",
            "detector": "lisa_video/assets/keypoint_net",
            "held_out_clips": len(truth),
            "manifest_digest": file_digest(manifest),
            "seeds": seeds,
            "interval": "95 % bootstrap over seeds and clips together",
            "trained_by": "python -m benchmarks.convergence (arms of a seed share clips, noise and the frozen pass)",
        },
        "runs": [{key: value for key, value in facts.items() if key != "experiment"} for facts in done],
        "arms": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(f"baseline: {arms[0]}, {100 * baseline.accuracy[-1]:.1f} % after {baseline.steps[-1]} steps")
    for row in rows:
        ratio = row["speed_up"].get(arms[0], {}).get("ratio")
        text = "-" if ratio is None else f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
        pck, low, high = (100 * row[key][-1] for key in ("pck", "low", "high"))
        print(f"{row['arm']:24s} PCK {pck:5.1f} [{low:.1f}, {high:.1f}]  speed-up {text}")


def _truth(settings: BenchmarkConfig, manifest: str) -> dict[str, Keypoints]:
    config = load_config(Path(settings.base), [*settings.overrides, f"data.manifest={manifest}"])
    data = config.data
    held_out = Manifest(manifest, "val")
    dataset = PoseClipDataset(
        held_out, num_frames=data.num_frames, frame_stride=data.frame_stride, size=data.size, random_start=False
    )
    clips = [dataset[SampleKey(index, index)] for index in range(min(settings.eval_clips, len(held_out)))]
    return {clip.clip_id: clip.keypoints for clip in clips}


def _counts(path: Path, truth: dict[str, Keypoints]) -> tuple[np.ndarray, np.ndarray]:
    """(N,) joints found within the threshold, and (N,) to be found."""
    with np.load(path) as file:
        xy, score, ids = file["xy"], file["score"], file["ids"].tolist()
    assert ids == list(truth)
    person = np.zeros(1, np.int64)
    counts = [
        count_correct(Keypoints(xy[n][:, None], score[n][:, None], person), truth[name], (THRESHOLD,))
        for n, name in enumerate(ids)
    ]
    return np.array([int(c.correct.sum()) for c in counts]), np.array([int(c.visible.sum()) for c in counts])


def _curve(folder: Path, arm: str, seeds: list[int], truth: dict[str, Keypoints]) -> LearningCurve:
    places = [folder / f"seed-{seed}" for seed in seeds]
    kept = [{int(path.stem.removeprefix("found-")) for path in (place / arm).glob("found-*.npz")} for place in places]
    steps = sorted(set.intersection(*kept))
    correct, visible = [], np.zeros(0)
    for place in places:
        floor, visible = _counts(place / "floor" / "found-000000.npz", truth)
        correct.append([floor, *(_counts(place / arm / f"found-{step:06d}.npz", truth)[0] for step in steps)])
    return LearningCurve(arm, np.array([0, *steps]), tuple(seeds), np.array(correct), visible)


def _rows(folder: Path, arm: str, seed: int) -> list[dict[str, Any]]:
    text = (folder / f"seed-{seed}" / arm / "curve.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _held_out(folder: Path, arm: str, seeds: list[int], steps: np.ndarray) -> list[list[float]]:
    """Error over that of the frozen network by checkpoint and noise level, mean over seeds; 1: no control."""
    ratios = []
    for seed in seeds:
        frozen = np.array(_rows(folder, "floor", seed)[0]["held_out"])
        by_step = {row["step"]: np.array(row["held_out"]) / frozen for row in _rows(folder, arm, seed)}
        ratios.append([by_step.get(int(step), np.ones_like(frozen)) for step in steps])
    mean: list[list[float]] = np.mean(ratios, axis=0).round(5).tolist()
    return mean


def _losses(folder: Path, arm: str, seeds: list[int]) -> list[list[dict[str, Any]]]:
    return [
        [{key: row[key] for key in ("step", "denoising", "lisa", "residual")} for row in _rows(folder, arm, seed)]
        for seed in seeds
    ]
