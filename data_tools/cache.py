"""`lisa-video data cache OUT`: encode every training clip once, so that training need not.

For each frame of a clip its latents and, if it may become a reference, its embedding are kept, of the mirrored frame
too where training mirrors. The reference's own latents are not: they are of the picture plus fresh noise, so training
encodes this one frame of each clip, from a lossless picture. What is there already is not made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from tqdm import tqdm

from data_tools.cache_encoding import Job, encode_clips, estimate_bytes
from data_tools.cache_parts import EncodedClip, PartWriter, clips_of, publish, read_parts, remove_leftovers
from lisa_video.config.schema import RunConfig
from lisa_video.data.buckets import plan_buckets
from lisa_video.data.cache import FACTS, CacheFacts, ClipCache, frames_store
from lisa_video.data.cache_source import cached_clips, shortest_span
from lisa_video.data.manifest import Manifest, file_digest
from lisa_video.errors import UserError
from lisa_video.models.backbone import Codec
from lisa_video.models.build import build_backbone, check_size
from lisa_video.models.weights import codec_digest
from lisa_video.processes import end_with_parent

Number = Literal["float16", "float32"]
_SPARE_BYTES = 512 * 2**20
SHARD_BYTES = 128 * 2**20
"""Records that are written together; a killed build loses at most this much for each process."""


class CacheReport(NamedTuple):
    """What a build did.

    Attributes:
        made: clips that were encoded.
        there: clips that were there already.
        broken: clip ids that could not be encoded, with reasons; training skips and counts them.
        left_out: records that no training clip fits in.
        num_bytes: size of the cache on the disk.
    """

    made: int
    there: int
    broken: dict[str, str]
    left_out: int
    num_bytes: int


@dataclass(frozen=True)
class _Task:
    """What a process needs to know."""

    config: RunConfig
    out: Path
    dtype: Number
    jobs: tuple[Job, ...]
    shard_bytes: int


def build_cache(
    config: RunConfig,
    out: Path,
    *,
    dtype: Number = "float16",
    num_processes: int = 1,
    shard_bytes: int = SHARD_BYTES,
) -> CacheReport:
    """Bring a cache up to date with the training split of a config's manifest.

    Args:
        config: its `data` and `backbone` decide what is encoded; `data.cache` is not looked at.
        out: folder of the cache, made if it is not there.
        dtype: of latents and embeddings; float32 trains as pixels do but for rounding of the codec's batches.
        num_processes: spread over the GPUs, or taking one thread each on a CPU; each loads the backbone.
        shard_bytes: see `SHARD_BYTES`.

    Raises:
        UserError: no such manifest or backbone, a cache of other settings there, another build running there, or not
            enough space on the disk.
    """
    manifest = Manifest(config.data.manifest, "train")
    plan = plan_buckets(manifest, config.data)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        (out / "parts").mkdir(exist_ok=True)
        codec, digest = _codec(config)
        facts = CacheFacts(
            codec=digest,
            dtype=dtype,
            mirrored=config.data.flip_probability > 0,
            span=shortest_span(config.data),
            manifest=file_digest(config.data.manifest),
        )
        facts = facts.model_copy(update={"parts": _published(out, facts)})
        found = read_parts(out)
        remove_leftovers(out, found)
        there = {clip["key"]: clip["poses_digest"] for clip in clips_of(found)}
        records = list(cached_clips(manifest, plan, config.data.frame_stride))
        wanted = [Job(index, key, size) for index, (_, key, size) in enumerate(records) if key is not None]
        jobs = [
            job
            for job in wanted
            if there.get(job.key.hex()) != _poses_digest(manifest.resolve(records[job.index][0].keypoints))
        ]
        if jobs:
            _check_disk(out, estimate_bytes(codec, manifest, jobs, facts))
        broken = _run(_Task(config, out, dtype, tuple(jobs), shard_bytes), num_processes, codec)
        reasons = {job.key.hex(): broken[job.index] for job in jobs if job.index in broken}
        publish(out, facts.model_copy(update={"broken": reasons}))
    return CacheReport(
        made=len(jobs) - len(broken),
        there=len(wanted) - len(jobs),
        broken={records[index][0].clip_id: reason for index, reason in broken.items()},
        left_out=len(records) - len(wanted),
        num_bytes=sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
    )


def _published(out: Path, facts: CacheFacts) -> tuple[str, ...]:
    """Parts of the cache that is there, if there is one; it must be of the same making."""
    if not (out / FACTS).is_file():
        return ()
    before = ClipCache(str(out)).facts
    for name in ("codec", "dtype", "mirrored", "span"):
        old, new = getattr(before, name), getattr(facts, name)
        if old != new:
            raise UserError(
                f"the cache there was built with {name} = {old}, now it is {new}",
                where=out / FACTS,
                remedy="build it in a new folder, or with the settings of the first time",
            )
    return before.parts


def _poses_digest(path: Path) -> str:
    """Of a keypoint file; empty if it cannot be read, which encoding will report."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _check_disk(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    print(f"cache {out}: about {needed / 2**30:.2f} GiB to write, {free / 2**30:.1f} GiB free")
    if needed + _SPARE_BYTES > free:
        raise UserError(
            f"about {needed / 2**30:.2f} GiB are needed, {free / 2**30:.2f} GiB are free",
            where=out,
            remedy="free space, choose another folder, or cache fewer clips or smaller frames",
        )


def _codec(config: RunConfig) -> tuple[Codec, str]:
    """The run's codec and its digest; the rest of the backbone is let go."""
    parts = build_backbone(config.backbone)
    check_size(config, parts)
    return parts.codec, codec_digest(parts)


def _run(task: _Task, num_processes: int, codec: Codec) -> dict[int, str]:
    """Encode all jobs; returns the reasons of those that failed, by index."""
    broken: dict[int, str] = {}
    with tqdm(total=len(task.jobs), desc=f"cache {task.out.name}", unit="clip", disable=not task.jobs) as bar:
        if num_processes == 1:
            for index, reason in _encode(task, codec, _device(0)):
                bar.update()
                broken |= {index: reason} if reason else {}
            return broken
        context = get_context("spawn")
        counter = context.Value("i", 0)
        with ProcessPoolExecutor(num_processes, context, initializer=_start, initargs=(counter,)) as pool:
            shares = [_share(task, number, num_processes) for number in range(num_processes)]
            futures = [pool.submit(_encode_share, share, number) for number, share in enumerate(shares)]
            pending = set(futures)
            while pending:
                _, pending = wait(pending, timeout=0.5)
                bar.update(counter.value - bar.n)
            for future in futures:
                broken |= future.result()
    return broken


def _share(task: _Task, number: int, count: int) -> _Task:
    return _Task(task.config, task.out, task.dtype, task.jobs[number::count], task.shard_bytes)


_progress: Any = None  # counter of clips, shared by the worker processes


def _start(counter: Any) -> None:
    global _progress
    _progress = counter
    torch.set_num_threads(1)
    end_with_parent()


def _encode_share(task: _Task, number: int) -> dict[int, str]:
    broken = {}
    for index, reason in _encode(task, build_backbone(task.config.backbone).codec, _device(number)):
        with _progress.get_lock():
            _progress.value += 1
        if reason:
            broken[index] = reason
    return broken


def _encode(task: _Task, codec: Codec, device: torch.device) -> Iterator[tuple[int, str]]:
    """Encode jobs in order and write them in parts; yields (index, reason why not, or nothing)."""
    writer = PartWriter(task.out)
    for job, clip in encode_clips(task.config.data, codec.to(device), task.dtype, task.jobs):
        if isinstance(clip, EncodedClip):
            writer.add(job.key, frames_store(job.size), clip)
        if writer.num_bytes >= task.shard_bytes:
            writer.close()
            writer = PartWriter(task.out)
        yield job.index, "" if isinstance(clip, EncodedClip) else clip
    writer.close()


def _device(number: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", number % torch.cuda.device_count())


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """One build in a folder at a time; a killed one leaves no lock behind."""
    with open(out / ".lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError("another build is running here", where=out, remedy="wait for it") from error
        yield
