"""Held-out clips of a run, sampled over processes: every clip is a file, so a killed job continues."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from lisa_video.config.load import load_config
from lisa_video.config.schema import RunConfig
from lisa_video.data.batch import Clip, SampleKey, collate
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.manifest import Manifest, file_digest
from lisa_video.errors import UserError
from lisa_video.models.weights import weights_file_digest, weights_folder
from lisa_video.pipeline import PoseVideoPipeline
from lisa_video.processes import end_with_parent

# Clips are sampled in groups of fixed members, whatever the number of processes and whatever is there already: their
# noise is their own, but a batch of another size may round differently.
_GROUP = 4
_TRAINING_ONLY = {"num_workers", "flip_probability", "buckets", "max_upscale", "cache"}
_logger = logging.getLogger(__name__)

Source = Literal["controlled", "uncontrolled", "codec"]
"""Where clips come from: the trained branch, the frozen network alone, or the true frames through the VAE and back."""


@dataclass(frozen=True)
class GenerationJob:
    """What decides the pixels of the generated clips.

    Attributes:
        run_dir: a training run with exported weights.
        num_clips: the first so many held-out clips, in the order of the manifest.
        seed: of the sampling noise, together with each clip's name.
        source: see `Source`.
        step: of the weights that the run kept; None: the newest.
    """

    run_dir: str
    num_clips: int
    seed: int = 0
    source: Source = "controlled"
    step: int | None = None

    @property
    def config(self) -> RunConfig:
        """The run's own config.

        Raises:
            UserError: there is no such run.
        """
        path = Path(self.run_dir) / "config.yaml"
        if not path.is_file():
            raise UserError(
                "not a run: no config.yaml", where=self.run_dir, remedy="name the run_dir of a training run"
            )
        return load_config(path)

    @property
    def folder(self) -> Path:
        """Where the clips go; another folder for other weights, data or sampling settings. Reads the weights' files.

        Raises:
            UserError: no such run, or a run without weights yet.
        """
        config = self.config
        facts: dict[str, Any] = {
            "backbone": config.backbone.model_dump(mode="json"),
            "data": config.data.model_dump(mode="json", exclude=_TRAINING_ONLY),
            "manifest": file_digest(config.data.manifest),
        }
        if self.source != "codec":
            facts |= {"sampling": config.sampling.model_dump(mode="json"), "seed": self.seed}
            facts["conditioning"] = config.conditioning.model_dump(mode="json")
        if self.source == "controlled":
            facts["weights"] = weights_file_digest(weights_folder(self.run_dir, self.step))
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        return Path(self.run_dir) / "eval" / f"{self.source}-{key}"


def held_out_clips(config: RunConfig, num_clips: int) -> Iterator[Clip]:
    """The first held-out clips of a run's data, as the run sees them, one at a time; unusable ones are left out."""
    dataset = _held_out(config)
    for index in range(min(num_clips, len(dataset))):
        clip = dataset[SampleKey(index, index)]
        if not clip.skipped:
            yield clip


def generate(job: GenerationJob, num_processes: int = 1) -> Path:
    """Sample what is still missing; returns the folder of `CLIP_ID.npz` files (array `frames`, uint8 F H W 3).

    Args:
        job: what to sample.
        num_processes: 1 samples in this process; more are spread over the GPUs, or take one thread each on a CPU.

    Raises:
        UserError: no such run, no weights yet, or weights that do not fit the backbone.
    """
    folder, manifest = job.folder, Manifest(job.config.data.manifest, "val")
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{manifest[index].clip_id}.npz" for index in range(min(job.num_clips, len(manifest)))]
    groups = [
        range(start, min(start + _GROUP, len(manifest)))
        for start in range(0, len(files), _GROUP)
        if not all(file.is_file() for file in files[start : start + _GROUP])
    ]
    missing = sum(not file.is_file() for file in files)
    with tqdm(total=len(files), initial=len(files) - missing, desc=f"sample {folder.name}", unit="clip") as bar:
        for written in _sample_groups(job, folder, groups, num_processes):
            bar.update(min(written, missing))  # the last group may hold clips that were not asked for
            missing -= min(written, missing)
    return folder


def load_generated(folder: Path, clip_id: str) -> np.ndarray:
    """Frames of a generated clip, (F, H, W, 3) uint8."""
    with np.load(folder / f"{clip_id}.npz") as file:
        frames: np.ndarray = file["frames"]
    return frames


def _sample_groups(job: GenerationJob, folder: Path, groups: Sequence[range], num_processes: int) -> Iterator[int]:
    """Yield the number of clips that were written, group by group, in the order in which groups are done."""
    if num_processes == 1 and groups:
        sampler = _Sampler(job, folder, worker=0)
        yield from map(sampler, groups)
    elif groups:
        context = get_context("spawn")
        counter = context.Value("i", 0)
        with ProcessPoolExecutor(
            num_processes, mp_context=context, initializer=_start_worker, initargs=(counter,)
        ) as pool:
            try:
                for future in as_completed([pool.submit(_sample, job, folder, group) for group in groups]):
                    yield future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


class _Sampler:
    """A job with its pipeline loaded: call it with the indices of a group.

    Args:
        job: what to sample.
        folder: `job.folder`.
        worker: number of this process; decides its GPU.
    """

    def __init__(self, job: GenerationJob, folder: Path, worker: int) -> None:
        device = f"cuda:{worker % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
        self.job, self.folder = job, folder
        self.pipeline, self.dataset = (
            PoseVideoPipeline.from_run(job.run_dir, device, step=job.step),
            _held_out(job.config),
        )

    def __call__(self, indices: Sequence[int]) -> int:
        """Sample the clips of a group, keep those that are missing, and return their number."""
        clips = [self.dataset[SampleKey(index, index)] for index in indices]
        for skipped in (skipped for clip in clips for skipped in clip.skipped[:1]):
            _logger.warning("left out clip %s: %s", skipped.clip_id, skipped.reason)
        usable = [clip for clip in clips if not clip.skipped]
        missing = [clip.clip_id for clip in usable if not (self.folder / f"{clip.clip_id}.npz").is_file()]
        if missing:
            for clip, video in zip(usable, self._videos(usable), strict=True):
                if clip.clip_id in missing:
                    self._write(clip.clip_id, video)
        return len(missing)

    def _videos(self, clips: Sequence[Clip]) -> np.ndarray:
        batch = collate(clips)
        if self.job.source == "codec":
            return self.pipeline.reconstruct(batch.frames).numpy()
        return self.pipeline(
            batch.reference,
            batch.pose_maps if self.job.source == "controlled" else None,
            batch.fps,
            seed=self.job.seed,
            keys=batch.clip_ids,
            num_frames=batch.frames.shape[1],
        ).numpy()

    def _write(self, clip_id: str, video: np.ndarray) -> None:
        draft = self.folder / f"{clip_id}.tmp"
        with open(draft, "wb") as file:
            np.savez_compressed(file, frames=video)
        draft.replace(self.folder / f"{clip_id}.npz")


_worker = 0  # number of this worker process


def _start_worker(counter: Synchronized[int]) -> None:
    """Number a worker process; one thread each, since they fill the cores; and no life beyond that of the parent."""
    global _worker
    with counter.get_lock():
        _worker = counter.value
        counter.value += 1
    torch.set_num_threads(1)
    end_with_parent()


@lru_cache(maxsize=1)
def _sampler(job: GenerationJob, folder: Path) -> _Sampler:
    """Of this worker process: loading takes longer than sampling a clip."""
    return _Sampler(job, folder, _worker)


def _sample(job: GenerationJob, folder: Path, group: range) -> int:
    return _sampler(job, folder)(group)


def _held_out(config: RunConfig) -> PoseClipDataset:
    data = config.data
    return PoseClipDataset(
        Manifest(data.manifest, "val"),
        num_frames=data.num_frames,
        frame_stride=data.frame_stride,
        size=data.size,
        random_start=False,
    )
