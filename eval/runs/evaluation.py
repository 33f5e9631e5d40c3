"""`Evaluation`: everything that is known of one arm's clips. Sampled once, scored by many measures, kept in files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from eval.bootstrap import Estimate
from eval.distances.extractors.load import load_extractor
from eval.distances.features import FeatureExtractor
from eval.distances.kernel_distance import KernelDistance
from eval.json_files import with_nan, write_json
from eval.pose_accuracy.found_poses import detector_protocol
from eval.pose_accuracy.scores import Scores
from eval.protocol import protocol_id
from eval.runs.generate import GenerationJob, generate, held_out_clips, load_generated
from eval.runs.held_out_loss import HeldOutLoss, held_out_loss
from eval.runs.job_pool import side_by_side
from eval.runs.kept_features import kept_features
from eval.runs.kept_poses import find_poses, load_found
from eval.runs.sample_protocol import sample_protocol
from eval.runs.scoring import Distance, PixelScores, PosedClip, distance_between, pixel_scores, pose_scores, psnr_db
from lisa_video.errors import UserError
from lisa_video.pose.detectors.scoring import default_detectors, named_detector

_VERSION = 2  # of what the files of scores hold
I3D, DEMO_FEATURES = "i3d", "keypoint-net"


@dataclass(frozen=True)
class Measures:
    """By what clips are scored.

    Attributes:
        detectors: of poses, see `named_detector`; the first makes the headline.
        extractors: of the features of Frechet distances, see `load_extractor`.
    """

    detectors: tuple[str, ...]
    extractors: tuple[str, ...]

    @classmethod
    def chosen(cls, detectors: tuple[str, ...] = (), *, fvd: bool = False) -> Measures:
        """What a command line asks for; without detectors the default ones."""
        return cls(detectors or default_detectors(), (DEMO_FEATURES, I3D) if fvd else (DEMO_FEATURES,))

    def check(self, num_frames: int) -> None:
        """Load everything once, so that a mistake is told before hours of training or sampling.

        Args:
            num_frames: of the clips.

        Raises:
            UserError: no such detector or extractor, one that cannot be loaded here, or clips too short for one.
        """
        for name in self.detectors:
            named_detector(name)
        for name in self.extractors:
            named_extractor(name).check_length(num_frames)

    @property
    def protocols(self) -> dict[str, Any]:
        """What the measures are, digests and all."""
        return {
            "detectors": [detector_protocol(named_detector(name)) for name in self.detectors],
            "extractors": [named_extractor(name).protocol for name in self.extractors],
        }


@dataclass(frozen=True)
class Evaluation:
    """What one arm's clips are worth; every part has its own protocol.

    Attributes:
        poses: pose accuracy, by each detector.
        distances: from the true clips, by each extractor.
        pixels: likeness to the true frames.
        loss: on held-out clips; None for clips that come from no denoising network.
    """

    poses: tuple[Scores, ...]
    distances: tuple[Distance, ...]
    pixels: PixelScores
    loss: HeldOutLoss | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Evaluation:
        """What `write_json` wrote."""
        return cls(
            tuple(Scores.from_json(part) for part in values["poses"]),
            tuple(_distance(part) for part in values["distances"]),
            PixelScores(**values["pixels"]),
            HeldOutLoss.from_json(values["loss"]) if values["loss"] is not None else None,
        )


def prepare(job: GenerationJob, measures: Measures, num_processes: int = 1) -> None:
    """Sample, and compute what wants a GPU: the held-out loss, and features of networks.

    Raises:
        UserError: no such run, no weights yet, or weights that do not fit the backbone.
    """
    generate(job, num_processes)
    if job.source in ("controlled", "uncontrolled"):
        held_out_loss(job)
    for name in measures.extractors:
        kept_features(job, named_extractor(name))


def evaluate(
    job: GenerationJob, measures: Measures, num_processes: int = 1, *, truth: GenerationJob | None = None
) -> Evaluation:
    """Sample and score a run's held-out clips, or read the scores if that was done before.

    Args:
        job: what to sample.
        measures: by what to score.
        num_processes: over which sampling and the search for poses are spread.
        truth: a job of source "truth" whose poses and features serve for this one too, if it has the same clips.

    Returns:
        The scores; also written to a `scores-*.json` beside the clips.

    Raises:
        UserError: no such run, no weights yet, no such detector or extractor, or too few clips.
    """
    measures.check(job.config.data.num_frames)
    prepare(job, measures, num_processes)
    protocol, folder = sample_protocol(job), job.folder
    facts = {"version": _VERSION, "measures": measures.protocols, "sample": protocol}
    path = folder / f"scores-{job.num_clips}-{protocol_id(facts)}.json"
    if path.is_file():
        return _read(path)
    real = GenerationJob(job.run_dir, job.num_clips, source="truth", overrides=job.overrides)
    if truth is not None and truth.folder.name == real.folder.name:
        real = truth
    found = [(name, find_poses(job, name, num_processes), find_poses(real, name, num_processes))
             for name in measures.detectors]  # fmt: skip
    driving, psnr = {}, {}
    for clip in tqdm(held_out_clips(job.config, job.num_clips), desc=f"score {folder.name}", unit="clip"):
        driving[clip.clip_id] = clip.keypoints
        psnr[clip.clip_id] = psnr_db(load_generated(folder, clip.clip_id), clip.array)
    height, width = job.config.data.size
    protocol |= {"size": f"{width} x {height} pixels (width x height)"}
    poses = []
    for name, fake, true in found:
        clips = [
            PosedClip(clip_id, load_found(fake, clip_id), load_found(true, clip_id), pose)
            for clip_id, pose in driving.items()
        ]
        poses.append(pose_scores(clips, named_detector(name), protocol=protocol))
    distances = [
        distance_between(kept_features(job, network), kept_features(real, network), network, protocol=protocol)
        for network in map(named_extractor, measures.extractors)
    ]
    loss = held_out_loss(job) if job.source in ("controlled", "uncontrolled") else None
    result = Evaluation(tuple(poses), tuple(distances), pixel_scores(psnr, protocol=protocol), loss)
    write_json(path, {**asdict(result), "facts": facts})
    return result


def evaluate_all(
    jobs: Sequence[GenerationJob], measures: Measures, num_processes: int, title: str
) -> dict[GenerationJob, Evaluation]:
    """Evaluate jobs on the same clips side by side; what was scored before is read, so a killed evaluation goes on.

    Args:
        jobs: at least one; the first finds what all need of the true clips.
        measures: by what to score.
        num_processes: over which the jobs are spread.
        title: of the progress bar.

    Raises:
        UserError: see `evaluate`.
    """
    truth = replace(jobs[0], source="truth")
    first = evaluate(jobs[0], measures, num_processes, truth=truth)
    others = side_by_side(partial(evaluate, measures=measures, truth=truth), jobs[1:], num_processes, title)
    return dict(zip(jobs, [first, *others], strict=True))


def _read(path: Path) -> Evaluation:
    try:
        return Evaluation.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read scores ({error})", where=path, remedy="remove it and evaluate again") from error


def _distance(values: Mapping[str, Any]) -> Distance:
    read = with_nan(dict(values), keep=("protocol",))
    return Distance(**{**read, "frechet": Estimate(**read["frechet"]), "kernel": KernelDistance(**read["kernel"])})


@lru_cache(maxsize=4)
def named_extractor(name: str) -> FeatureExtractor:
    """The extractor that an evaluation knows by this name, on the GPU if there is one; loaded once for all checkpoints.

    Raises:
        UserError: see `load_extractor`.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_extractor(name, "own" if name == DEMO_FEATURES else "squash", device)
