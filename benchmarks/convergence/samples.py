"""What the newest samples are worth by other measures: Frechet distances, FVD among them, and further detectors.

The curves take one cheap detector, since they ask for a score of every checkpoint amid training. These measures are
asked of the last checkpoint only, whose samples are kept, afterwards and on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from eval.distances.features import FeatureExtractor
from eval.pose_accuracy.scores import threshold_key
from eval.runs.evaluation import Measures, named_extractor
from eval.runs.scoring import PosedClip, distance_between, pose_scores
from lisa_video.data.batch import Clip
from lisa_video.errors import UserError
from lisa_video.pose.detector import PoseDetector
from lisa_video.pose.detectors.scoring import named_detector

Videos = Mapping[str, UInt8[np.ndarray, "F H W 3"]]
"""By the names of clips."""


class Scored(NamedTuple):
    """One arm's samples of one seed by one measure: its name, what the numbers depend on, and the numbers."""

    label: str
    protocol: dict[str, Any]
    numbers: dict[str, Any]


def score_samples(
    folders: Mapping[str, Sequence[Path]], step: int, clips: Sequence[Clip], measures: Measures, threshold: float
) -> dict[str, Any]:
    """Score the samples that `train` kept.

    Args:
        folders: of each arm, one a seed; those of the frozen network alone are of step 0.
        step: of which the others must be.
        clips: the true ones.
        measures: extractors and detectors.
        threshold: of PCK.

    Returns:
        JSON values: of each measure its protocol, and of each arm the numbers by seed, with intervals over clips.

    Raises:
        UserError: samples are of another step or of other clips, a measure cannot be loaded, or it does not take clips
            of this length.
    """
    measures.check(len(clips[0].array))
    samples = {arm: [_read(folder, step, clips) for folder in of_seeds] for arm, of_seeds in folders.items()}
    judges = [_Distances(named_extractor(name), clips) for name in measures.extractors]
    judges += [_Poses(named_detector(name), clips, threshold) for name in measures.detectors]
    found: dict[str, Any] = {"step": step, "measures": {}}
    total = len(judges) * sum(len(of_seeds) for of_seeds in samples.values())
    with tqdm(total=total, desc="further measures", unit="set of clips") as bar:
        for judge in judges:
            for arm, of_seeds in samples.items():
                for videos in of_seeds:
                    scored = judge(videos)
                    entry = found["measures"].setdefault(scored.label, {"protocol": scored.protocol, "arms": {}})
                    entry["arms"].setdefault(arm, []).append(scored.numbers)
                    bar.update()
    return found


def print_samples(found: Mapping[str, Any]) -> None:
    """The mean over seeds of each measure and arm, and the seeds."""
    for measure, entry in found["measures"].items():
        print(f"{measure} at step {found['step']}:")
        for arm, of_seeds in entry["arms"].items():
            values = [numbers["value"] for numbers in of_seeds]
            print(f"  {arm:24s} {np.mean(values):.4f} ({', '.join(f'{value:.4f}' for value in values)})")


def _read(folder: Path, step: int, clips: Sequence[Clip]) -> Videos:
    with np.load(folder / "videos.npz") as kept:
        if kept["step"] not in (0, step):
            remedy = f"train it to step {step} as the others, or choose seeds that ended alike with `--seed`"
            raise UserError(f"has samples of step {kept['step']}", where=str(folder), remedy=remedy)
        videos = dict(zip(kept["ids"].tolist(), kept["videos"], strict=True))
    if missing := [clip.clip_id for clip in clips if clip.clip_id not in videos]:
        remedy = "score with the manifest and `eval_clips` that it was trained with"
        raise UserError(
            f"has no sample of {len(missing)} held-out clips: {missing[0]}", where=str(folder), remedy=remedy
        )
    return {clip.clip_id: videos[clip.clip_id] for clip in clips}


class _Distances:
    """Frechet and kernel distance from the true clips."""

    def __init__(self, extractor: FeatureExtractor, clips: Sequence[Clip]) -> None:
        self.extractor = extractor
        self.true = self._features({clip.clip_id: clip.array for clip in clips})

    def __call__(self, videos: Videos) -> Scored:
        found = distance_between(self._features(videos), self.true, self.extractor, protocol={})
        numbers = {**asdict(found.frechet), "kernel": asdict(found.kernel), "floor": found.floor}
        return Scored(found.label, found.protocol, numbers)

    def _features(self, videos: Videos) -> dict[str, np.ndarray]:
        return {name: self.extractor.features(video[None])[0] for name, video in videos.items()}


class _Poses:
    """Pose accuracy by one detector."""

    def __init__(self, detector: PoseDetector, clips: Sequence[Clip], threshold: float) -> None:
        self.detector, self.clips, self.threshold = detector, clips, threshold
        self.true = [detector.detect(clip.array, clip.fps) for clip in clips]

    def __call__(self, videos: Videos) -> Scored:
        posed = [
            PosedClip(clip.clip_id, self.detector.detect(videos[clip.clip_id], clip.fps), true, clip.keypoints)
            for clip, true in zip(self.clips, self.true, strict=True)
        ]
        found = pose_scores(posed, self.detector, protocol={}, thresholds=[self.threshold])
        key = threshold_key(self.threshold)
        numbers = {**asdict(found.pck[key]), "ceiling": asdict(found.ceiling[key])}
        return Scored(f"PCK@{key} by {self.detector.name}", found.protocol, numbers)
