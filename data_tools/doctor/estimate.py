"""What training on a data set will ask for: steps an epoch, disk, cache and memory of the loader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lisa_video.config.schema import DataConfig, TrainingConfig
from lisa_video.data.buckets import Bucket, buckets_of, choose_bucket, span
from lisa_video.data.manifest import ClipRecord

LATENT_CHANNELS, LATENT_STRIDE, EMBEDDING = 4, 8, 1024  # of Stable Video Diffusion
PICTURE_BYTES = 1.0
"""Bytes a pixel of a lossless WebP: 0.9 to 1.05 on real footage at its own size, 0.4 to 0.6 where it was enlarged."""

_PROCESS_BYTES = 64 * 2**20  # of decoder and libraries at work
_WORKER_BYTES = 400 * 2**20  # a loader process before it has loaded anything, with its share of the fork server
_PREFETCH = 2  # batches that a worker loads ahead, as in `build_loader`


@dataclass(frozen=True)
class TrainingShape:
    """The settings of a run on which these numbers depend.

    Attributes:
        data: its section `data`.
        training: its section `training`.
        ranks: processes, one a GPU.
    """

    data: DataConfig
    training: TrainingConfig
    ranks: int = 1


@dataclass(frozen=True)
class Estimate:
    """What a run will ask for.

    Attributes:
        clips: training clips that it can use.
        left_out: of the training split: reason -> clips.
        buckets: bucket -> clips.
        clips_a_step: over all ranks.
        steps_an_epoch: optimizer steps in which every usable clip is seen once.
        video_bytes: of the video files on the disk, each counted once.
        keypoint_bytes: of the keypoint files on the disk.
        cache_bytes: of a latent cache with float16 numbers: latents, embeddings, pictures and keypoints.
        batch_bytes: of the largest micro-batch as the model gets it.
        loader_bytes: peak memory of the loader of one rank, all its processes.
    """

    clips: int
    left_out: dict[str, int]
    buckets: dict[str, int]
    clips_a_step: int
    steps_an_epoch: float
    video_bytes: int
    keypoint_bytes: int
    cache_bytes: int
    batch_bytes: int
    loader_bytes: int


def estimate(root: Path, clips: Sequence[ClipRecord], shape: TrainingShape) -> Estimate:
    """Predict; nothing is decoded.

    Args:
        root: folder of the manifest.
        clips: of all splits.
        shape: of the run.
    """
    data = shape.data
    buckets = buckets_of(data)
    chosen: list[tuple[ClipRecord, Bucket]] = []
    left_out: Counter[str] = Counter()
    for clip in clips:
        if clip.split == "train":
            bucket, lacks = _bucket_of(clip, buckets, data)
            if bucket is None:
                left_out[f"too few {lacks}"] += 1
            else:
                chosen.append((clip, bucket))
    batch = max(_batch_bytes(bucket, shape.training.micro_batch_size) for bucket in buckets)
    clips_a_step = shape.training.micro_batch_size * shape.training.gradient_accumulation * shape.ranks
    return Estimate(
        clips=len(chosen),
        left_out=dict(left_out),
        buckets={str(bucket): count for bucket, count in Counter(bucket for _, bucket in chosen).most_common()},
        clips_a_step=clips_a_step,
        steps_an_epoch=len(chosen) / clips_a_step,
        video_bytes=_disk_bytes(root, {clip.video for clip in clips}),
        keypoint_bytes=_disk_bytes(root, {clip.keypoints for clip in clips}),
        cache_bytes=_cache_bytes(root, chosen, data),
        batch_bytes=batch,
        loader_bytes=_loader_bytes(clips, buckets, shape, batch),
    )


def _bucket_of(clip: ClipRecord, buckets: Sequence[Bucket], data: DataConfig) -> tuple[Bucket | None, str]:
    """As training chooses it: without `data.buckets`, every clip that is long enough goes into the one."""
    if data.buckets is None:
        fits = clip.num_frames >= span(data.num_frames, data.frame_stride)
        return (buckets[0], "") if fits else (None, "frames")
    number, lacks = choose_bucket(clip, buckets, data.frame_stride, data.max_upscale)
    return (None, lacks) if number is None else (buckets[number], "")


def _batch_bytes(bucket: Bucket, micro_batch_size: int) -> int:
    """Frames and pose maps, three float32 channels each."""
    return micro_batch_size * bucket.num_frames * bucket.height * bucket.width * 2 * 3 * 4


def _loader_bytes(clips: Sequence[ClipRecord], buckets: Sequence[Bucket], shape: TrainingShape, batch: int) -> int:
    """Batches that wait, the one in use and its pinned copy; and in each worker one clip at a time in full size.

    A worker holds the decoded frames of a clip, the resized ones with their pose maps, and the batch that it makes.
    """
    workers = shape.data.num_workers
    num_frames = max(bucket.num_frames for bucket in buckets)
    decoding = max(min(clip.num_frames, num_frames) * clip.width * clip.height * 3 for clip in clips)
    loading = decoding + batch // 4 + batch  # uint8 clips of the batch, then float32
    if workers == 0:
        return _PROCESS_BYTES + loading + batch
    return workers * (_WORKER_BYTES + loading) + (workers * _PREFETCH + 2) * batch


def _cache_bytes(root: Path, chosen: Sequence[tuple[ClipRecord, Bucket]], data: DataConfig) -> int:
    """As `data_tools/cache_encoding.py` writes it."""
    copies = 2 if data.flip_probability > 0 else 1
    total, shortest = 0.0, min(span(bucket.num_frames, data.frame_stride) for bucket in buckets_of(data))
    for clip, bucket in chosen:
        area = bucket.height * bucket.width
        numbers = LATENT_CHANNELS * area // LATENT_STRIDE**2 + EMBEDDING
        references = clip.num_frames - shortest + 1  # frames from which a sample can begin
        total += clip.num_frames * numbers * 2 * copies + references * area * PICTURE_BYTES
    return round(total) + _disk_bytes(root, {clip.keypoints for clip, _ in chosen})


def _disk_bytes(root: Path, names: set[str]) -> int:
    total = 0
    for name in names:
        try:
            total += (root / name).stat().st_size
        except OSError:
            continue  # named among the problems
    return total
