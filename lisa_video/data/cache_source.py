"""Training clips from a latent cache, and whether a cache fits a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import cv2
import numpy as np

from lisa_video.config.schema import DataConfig
from lisa_video.data.buckets import Plan, buckets_of, span
from lisa_video.data.cache import BYTES, ClipCache, Request, clip_key, frames_store
from lisa_video.data.geometry import Geometry
from lisa_video.data.manifest import ClipRecord, Manifest, file_digest, iter_records
from lisa_video.data.sources import ClipSource, Content, check_keypoints
from lisa_video.errors import UserError
from lisa_video.pose.keypoints import parse_keypoints

_AGAIN = "run `lisa-video data cache` again: only what is missing is made"


def cached_clips(
    manifest: Manifest, plan: Plan, frame_stride: int
) -> Iterator[tuple[ClipRecord, bytes | None, tuple[int, int]]]:
    """Records of a split with their keys and sizes, in order; the key is None for one that no training clip fits in."""
    records = (record for record in iter_records(manifest.path) if record.split == manifest.split)
    for record, number in zip(records, plan.bucket_of.tolist(), strict=True):
        bucket = plan.buckets[number]
        fits = number >= 0 and record.num_frames >= span(bucket.num_frames, frame_stride)
        yield record, clip_key(record, bucket.size) if fits else None, bucket.size


def shortest_span(data: DataConfig) -> int:
    """Frames of a record that the shortest training clip reaches over."""
    return min(span(bucket.num_frames, data.frame_stride) for bucket in buckets_of(data))


@final
class CacheSource(ClipSource):
    """Reads clips of a manifest's split from a cache; see `ClipSource`.

    Args:
        manifest: the split.
        plan: the bucket of each record.
        data: of the run.

    Raises:
        UserError: the cache was built for other settings, or from another manifest, or lacks clips.
    """

    def __init__(self, manifest: Manifest, plan: Plan, data: DataConfig) -> None:
        assert data.cache is not None
        self.cache = ClipCache(data.cache)
        check_settings(self.cache, data)
        keys = [key for _, key, _ in cached_clips(manifest, plan, data.frame_stride)]
        self._rows = self.cache.places(keys)
        self._broken = {
            index: self.cache.facts.broken[key.hex()]
            for index, key in enumerate(keys)
            if key is not None and key.hex() in self.cache.facts.broken
        }
        unknown = (row < 0 and key is not None for row, key in zip(self._rows.tolist(), keys, strict=True))
        missing = sum(unknown) - len(self._broken)
        if missing:
            raise UserError(f"{missing} of {len(keys)} clips are not in it", where=data.cache, remedy=_AGAIN)

    def read(self, index: int, record: ClipRecord, chosen: np.ndarray, geometry: Geometry) -> Content:
        """See `ClipSource`."""
        if index in self._broken:
            remedy = "mend the clip, then run `lisa-video data cache` again"
            raise UserError(f"could not be cached: {self._broken[index]}", where=self.cache.url, remedy=remedy)
        cache, table, row = self.cache, self.cache.table, self._rows[index]
        store, suffix = frames_store(geometry.target_size), "_mirrored" if geometry.mirror else ""
        number, first, count = int(table["frames"][row]), int(chosen[0]), int(chosen[-1] - chosen[0]) + 1
        step = int(chosen[1] - chosen[0]) if len(chosen) > 1 else 1
        latents, reference, poses = cache.windows(
            Request(store, number, first, count, (f"latents{suffix}",)),
            Request(store, number, first, 1, (f"embedding{suffix}", "picture")),
            Request(BYTES, int(table["poses"][row]), 0, int(table["poses_size"][row])),
        )
        start, size = reference["picture"][0].tolist()
        (packed,) = cache.windows(Request(BYTES, int(table["pictures"][row]), start, size))
        picture = cv2.imdecode(packed["bytes"], cv2.IMREAD_COLOR_RGB)
        if picture is None:
            raise UserError("damaged picture", where=cache.url, remedy="build the cache again in a new folder")
        keypoints = parse_keypoints(poses["bytes"].tobytes(), record.clip_id)
        check_keypoints(keypoints, record)
        return Content(
            keypoints.frames(chosen),
            np.ascontiguousarray(picture[None, :, ::-1] if geometry.mirror else picture[None]),
            np.ascontiguousarray(latents[f"latents{suffix}"][::step]),
            reference[f"embedding{suffix}"][0],
        )


def check_settings(cache: ClipCache, data: DataConfig) -> None:
    """Check what can be checked without the codec.

    Raises:
        UserError: the cache does not fit the run's settings; it names the difference.
    """
    facts = cache.facts
    if data.flip_probability > 0 and not facts.mirrored:
        raise UserError(
            "the cache has no mirrored frames, data.flip_probability is above 0",
            where=cache.url,
            remedy="set data.flip_probability=0, or build a cache with it above 0 in a new folder",
        )
    shortest = shortest_span(data)
    if shortest < facts.span:
        raise UserError(
            f"clips that reach over {shortest} frames, the cache keeps references for {facts.span} or more",
            where=cache.url,
            remedy="raise data.num_frames or data.frame_stride, or build a cache for these in a new folder",
        )
    if file_digest(data.manifest) != facts.manifest:
        raise UserError(f"built from another state of {data.manifest}", where=cache.url, remedy=_AGAIN)


def check_codec(url: str, codec: str) -> None:
    """Check that the frames of a cache were encoded by the run's own codec, given its digest.

    Raises:
        UserError: they were not.
    """
    cache = ClipCache(url)
    if cache.facts.codec != codec:
        raise UserError(
            f"encoded by other weights ({cache.facts.codec[:19]}...) than the run's ({codec[:19]}...)",
            where=cache.url,
            remedy="use the backbone.path that it was built with, or build a cache in a new folder",
        )
