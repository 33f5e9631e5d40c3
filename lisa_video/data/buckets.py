"""Buckets: sizes and lengths that clips are brought to, so that a batch holds equals and little is cut away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lisa_video.config.schema import DataConfig
from lisa_video.data.geometry import Geometry
from lisa_video.data.manifest import ClipRecord, Manifest, iter_records
from lisa_video.errors import UserError


class Bucket(NamedTuple):
    """One shape of training clips: pixels and frames."""

    height: int
    width: int
    num_frames: int

    @property
    def size(self) -> tuple[int, int]:
        """(H, W), pixels."""
        return self.height, self.width

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.num_frames}"


class Plan(NamedTuple):
    """Which bucket every record of a split goes to.

    Attributes:
        buckets: all of them, used or not.
        bucket_of: (N,) int16, a bucket's number for each record; -1: none fits.
        too_short: records with too few frames for every bucket.
        too_small: records that would have to be enlarged too much.
    """

    buckets: tuple[Bucket, ...]
    bucket_of: np.ndarray
    too_short: int
    too_small: int

    @property
    def members(self) -> list[np.ndarray]:
        """Record numbers of each bucket that has any, int64; buckets without a clip do not count."""
        found = [np.flatnonzero(self.bucket_of == number) for number in range(len(self.buckets))]
        return [records for records in found if len(records)]

    @property
    def num_left_out(self) -> int:
        """Records that no bucket takes."""
        return self.too_short + self.too_small

    def describe(self) -> str:
        """Clips of each bucket, and those of none, in one line."""
        counts = [f"{bucket}: {int((self.bucket_of == number).sum())}" for number, bucket in enumerate(self.buckets)]
        left_out = [f"too short: {self.too_short}"] * bool(self.too_short)
        left_out += [f"too small: {self.too_small}"] * bool(self.too_small)
        return ", ".join(counts + left_out)


def buckets_of(data: DataConfig) -> tuple[Bucket, ...]:
    """The buckets of a config: `data.buckets`, or the one of `data.size` and `data.num_frames`."""
    if data.buckets is None:
        return (Bucket(*data.size, data.num_frames),)
    return tuple(Bucket(*bucket) for bucket in data.buckets)


def span(num_frames: int, frame_stride: int) -> int:
    """Frames of a record from the first to the last of a clip, both included."""
    return (num_frames - 1) * frame_stride + 1


def choose_bucket(
    record: ClipRecord, buckets: Sequence[Bucket], frame_stride: int, max_upscale: float
) -> tuple[int | None, str]:
    """The bucket of a record.

    Of those that it has the frames for, and that do not enlarge it by more than `max_upscale`: the nearest aspect
    ratio (by the ratio of ratios), then the most frames, then the most pixels.

    Returns:
        Number of the bucket, or None; and if None, what the record lacks: "frames" or "pixels".
    """
    long_enough = [n for n, bucket in enumerate(buckets) if span(bucket.num_frames, frame_stride) <= record.num_frames]
    if not long_enough:
        return None, "frames"
    source = (record.height, record.width)
    sharp = [n for n in long_enough if Geometry(source, buckets[n].size, mirror=False).scale <= max_upscale]
    if not sharp:
        return None, "pixels"

    def rank(number: int) -> tuple[float, int, int]:
        height, width, num_frames = buckets[number]
        distance = abs(math.log(width * record.height / (height * record.width)))
        return round(distance, 6), -num_frames, -height * width

    return min(sharp, key=rank), ""


def plan_buckets(manifest: Manifest, data: DataConfig) -> Plan:
    """Give every record of a split its bucket; without `data.buckets` there is one, and it takes records as they are.

    Raises:
        UserError: no record fits any bucket.
    """
    buckets = buckets_of(data)
    if data.buckets is None:  # clips that are too short are skipped when their turn comes
        return Plan(buckets, np.zeros(len(manifest), np.int16), 0, 0)
    bucket_of, lacking = np.full(len(manifest), -1, np.int16), {"frames": 0, "pixels": 0, "": 0}
    records = (record for record in iter_records(manifest.path) if record.split == manifest.split)
    for index, record in enumerate(records):
        chosen, lacks = choose_bucket(record, buckets, data.frame_stride, data.max_upscale)
        lacking[lacks] += 1
        if chosen is not None:
            bucket_of[index] = chosen
    plan = Plan(buckets, bucket_of, lacking["frames"], lacking["pixels"])
    if not plan.members:
        raise UserError(
            f"no clip of split {manifest.split!r} fits a bucket ({plan.describe()})",
            where=manifest.path,
            remedy="give buckets of fewer frames or pixels, or raise data.max_upscale",
        )
    return plan
