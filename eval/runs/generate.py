"""Held-out clips of a run, sampled over processes: every clip is a file, so a killed job continues."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from eval.json_files import write_json
from eval.videos import ahead
from lisa_video.config.load import load_config
from lisa_video.config.schema import BackboneConfig, RunConfig
from lisa_video.data.batch import Clip, SampleKey, collate
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.manifest import Manifest, file_digest
from lisa_video.errors import UserError
from lisa_video.models.backbone import BackboneParts
from lisa_video.models.build import build_backbone
from lisa_video.models.weights import weights_file_digest, weights_folder
from lisa_video.pipeline import PoseVideoPipeline
from lisa_video.processes import end_with_parent

# Clips are sampled in groups of fixed members, whatever the number of processes and whatever is there already: their
# noise is their own, but a batch of another size may round differently.
_GROUP_CPU, _GROUP_GPU = 4, 32
_DECODED_AHEAD = 4
_GROUP_FILE = "group.json"
_TRAINING_ONLY = {"num_workers", "flip_probability", "buckets", "max_upscale", "cache"}
_logger = logging.getLogger(__name__)

Source = Literal["controlled", "uncontrolled", "codec", "truth"]
"""Where clips come from: the trained branch, the frozen network alone, the true frames through the VAE and back, or
the true frames as they are (nothing to sample: only found poses and features of them are kept)."""


@dataclass(frozen=True)
class GenerationJob:
    """What decides the pixels of the generated clips.

    Attributes:
        run_dir: a training run with exported weights.
        num_clips: the first so many held-out clips, in the order of the manifest.
        seed: of the sampling noise, together with each clip's name.
        source: see `Source`.
        step: of the weights that the run kept; None: the newest.
        group: clips sampled at once; None: 32 on a GPU, 4 on a CPU. A folder goes on as it was begun.
        overrides: `a.b=c` settings of the run to change, such as `sampling.num_steps=50`.
    """

    run_dir: str
    num_clips: int
    seed: int = 0
    source: Source = "controlled"
    step: int | None = None
    group: int | None = None
    overrides: tuple[str, ...] = ()

    @property
    def config(self) -> RunConfig:
        """The run's config, with the overrides.

        Raises:
            UserError: there is no such run, or no such setting.
        """
        path = Path(self.run_dir) / "config.yaml"
        if not path.is_file():
            raise UserError(
                "not a run: no config.yaml", where=self.run_dir, remedy="name the run_dir of a training run"
            )
        return load_config(path, self.overrides)

    @property
    def folder(self) -> Path:
        """Where the clips go; another folder for other weights, data or sampling settings. Reads the weights' files.

        Raises:
            UserError: no such run, or a run without weights yet.
        """
        config = self.config
        facts: dict[str, Any] = {
            "data": config.data.model_dump(mode="json", exclude=_TRAINING_ONLY),
            "manifest": file_digest(config.data.manifest),
        }
        if self.source != "truth":
            facts["backbone"] = config.backbone.model_dump(mode="json")
        if self.source in ("controlled", "uncontrolled"):
            facts |= {"sampling": config.sampling.model_dump(mode="json", exclude_none=True), "seed": self.seed}
            facts["conditioning"] = config.conditioning.model_dump(mode="json")
        if self.source == "controlled":
            facts["weights"] = weights_file_digest(weights_folder(self.run_dir, self.step))
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        return Path(self.run_dir) / "eval" / f"{self.source}-{key}"


def held_out_clips(config: RunConfig, num_clips: int) -> Iterator[Clip]:
    """The first held-out clips of a run's data, as the run sees them, one at a time; unusable ones are left out."""
    dataset = held_out(config)
    clips = ahead(lambda index: dataset[SampleKey(index, index)], range(min(num_clips, len(dataset))), _DECODED_AHEAD)
    yield from (clip for clip in clips if not clip.skipped)


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
    if job.source == "truth":
        return folder
    files = [folder / f"{manifest[index].clip_id}.npz" for index in range(min(job.num_clips, len(manifest)))]
    size = group_size(job)
    groups = [
        range(start, min(start + size, len(manifest)))
        for start in range(0, len(files), size)
        if not all(file.is_file() for file in files[start : start + size])
    ]
    missing = sum(not file.is_file() for file in files)
    with tqdm(total=len(files), initial=len(files) - missing, desc=f"sample {folder.name}", unit="clip") as bar:
        for written in _sample_groups(job, folder, groups, num_processes):
            bar.update(min(written, missing))  # the last group may hold clips that were not asked for
            missing -= min(written, missing)
    return folder


def group_size(job: GenerationJob) -> int:
    """Clips that go through the networks at once: what the job's folder was begun with."""
    path = job.folder / _GROUP_FILE
    if not path.is_file():
        write_json(path, job.group or (_GROUP_GPU if torch.cuda.is_available() else _GROUP_CPU))
    size: int = json.loads(path.read_text(encoding="utf-8"))
    return size


def load_generated(folder: Path, clip_id: str) -> np.ndarray:
    """Frames of a generated clip, (F, H, W, 3) uint8."""
    with np.load(folder / f"{clip_id}.npz") as file:
        frames: np.ndarray = file["frames"]
    return frames


def _sample_groups(job: GenerationJob, folder: Path, groups: Sequence[range], num_processes: int) -> Iterator[int]:
    """Yield the number of clips that were written, group by group, in the order in which groups are done."""
    if num_processes == 1 and groups:
        sampler = _Sampler(job, folder, worker=0)
        yield from map(sampler.write, ahead(sampler.load, groups, 1))
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
    """A job with its pipeline loaded: `load` the clips of a group, then `write` their samples.

    Args:
        job: what to sample.
        folder: `job.folder`.
        worker: number of this process; decides its GPU.
    """

    def __init__(self, job: GenerationJob, folder: Path, worker: int) -> None:
        self.job, self.folder = job, folder
        self.pipeline, self.dataset = load_pipeline(job, worker), held_out(job.config)

    def load(self, indices: Sequence[int]) -> list[Clip]:
        """The usable clips of a group; those that are not are said."""
        clips = [self.dataset[SampleKey(index, index)] for index in indices]
        for skipped in (skipped for clip in clips for skipped in clip.skipped[:1]):
            _logger.warning("left out clip %s: %s", skipped.clip_id, skipped.reason)
        return [clip for clip in clips if not clip.skipped]

    def write(self, clips: Sequence[Clip]) -> int:
        """Sample the clips of a group, keep those that are missing, and return their number."""
        missing = [clip.clip_id for clip in clips if not (self.folder / f"{clip.clip_id}.npz").is_file()]
        if missing:
            videos = zip((clip.clip_id for clip in clips), self._videos(clips), strict=True)
            with ThreadPoolExecutor() as writers:  # compression takes longer than sampling on a GPU
                wanted = [(clip_id, video) for clip_id, video in videos if clip_id in missing]
                list(writers.map(self._write, *zip(*wanted, strict=True)))
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
    sampler = _sampler(job, folder)
    return sampler.write(sampler.load(group))


def load_pipeline(job: GenerationJob, worker: int = 0) -> PoseVideoPipeline:
    """The pipeline of a job; the frozen parts are kept, since the next job has most likely the same.

    Args:
        job: what to sample.
        worker: number of this process; decides its GPU.

    Raises:
        UserError: no such run, no weights yet, or weights that do not fit the backbone.
    """
    device = f"cuda:{worker % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    backbone = job.config.backbone
    digest = weights_file_digest(weights_folder(job.run_dir, job.step))
    return _pipeline(job.run_dir, job.step, job.overrides, digest, backbone.model_dump_json(), device)


@lru_cache(maxsize=1)
def _pipeline(
    run_dir: str, step: int | None, overrides: tuple[str, ...], digest: str, backbone: str, device: str
) -> PoseVideoPipeline:
    return PoseVideoPipeline.from_run(run_dir, device, overrides, step, _frozen_parts(backbone, device))


@lru_cache(maxsize=1)
def _frozen_parts(backbone: str, device: str) -> BackboneParts:
    return build_backbone(BackboneConfig.model_validate_json(backbone))


def held_out(config: RunConfig) -> PoseClipDataset:
    """The held-out clips of a run, as the run sees them."""
    data = config.data
    return PoseClipDataset(
        Manifest(data.manifest, "val"),
        num_frames=data.num_frames,
        frame_stride=data.frame_stride,
        size=data.size,
        random_start=False,
    )
