"""`PoseClipDataset`: from a record of the manifest to frames, keypoints and pose maps of one clip."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import Dataset

from lisa_video.config.schema import DataConfig
from lisa_video.data.batch import Clip, SampleKey, SkippedClip
from lisa_video.data.buckets import Bucket, Plan, plan_buckets, span
from lisa_video.data.cache_source import CacheSource
from lisa_video.data.geometry import Geometry
from lisa_video.data.manifest import ClipRecord, Manifest, iter_records
from lisa_video.data.order import epoch_order
from lisa_video.data.sources import ClipSource, VideoSource
from lisa_video.errors import UserError
from lisa_video.pose.render import draw_pose_maps

MAX_TRIES = 8
"""Records tried for one sample: so many broken ones in a row mean a broken data set."""


class PoseClipDataset(Dataset[Clip]):
    """Clips of a fixed length and size, or of their buckets', a pure function of (settings, key).

    A clip that cannot be used (too short, unreadable, not as the manifest says) is skipped, and the next record in
    the order of the same epoch and bucket takes its place; the returned clip lists what was skipped and why.

    Args:
        manifest: the split to take clips from.
        num_frames: F, frames of a clip.
        frame_stride: distance of the frames taken, in frames of the record.
        size: (H, W) of the clip, pixels.
        flip_probability: how often a clip is mirrored.
        seed: of start frames, mirroring, and the order of replacements; the one given to the loader.
        random_start: draw the first frame and mirroring for each sample (training); else take the record's first
            frames as they are (validation).
        plan: the bucket of each record; None: one bucket of `num_frames` and `size`.
        source: where frames come from; None: the videos.
        keep_in_memory: keep every clip that was loaded, once for each start frame and mirroring.
        left_out: names of clips that count as unusable, because they made losses that are not finite.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        num_frames: int,
        frame_stride: int,
        size: tuple[int, int],
        flip_probability: float = 0.0,
        seed: int = 0,
        random_start: bool = True,
        plan: Plan | None = None,
        source: ClipSource | None = None,
        keep_in_memory: bool = False,
        left_out: Collection[str] = (),
    ) -> None:
        self._kept: dict[tuple[int, int, bool], Clip] | None = {} if keep_in_memory else None
        self.manifest, self.frame_stride = manifest, frame_stride
        self.flip_probability, self.seed, self.random_start = flip_probability, seed, random_start
        everything = np.zeros(len(manifest), np.int16)
        self.plan = plan if plan is not None else Plan((Bucket(*size, num_frames),), everything, 0, 0)
        self.members = self.plan.members
        self.source = source if source is not None else VideoSource(manifest)
        self.left_out = left_out

    @classmethod
    def for_training(cls, data: DataConfig, seed: int, left_out: Collection[str] = ()) -> PoseClipDataset:
        """The training split as a run sees it: in buckets, from the cache, if the config says so.

        Raises:
            UserError: not a manifest, no clip fits a bucket, or a cache that does not fit.
        """
        manifest = Manifest(data.manifest, "train")
        plan = plan_buckets(manifest, data)
        return cls(
            manifest,
            num_frames=data.num_frames,
            frame_stride=data.frame_stride,
            size=data.size,
            flip_probability=data.flip_probability,
            seed=seed,
            plan=plan,
            source=None if data.cache is None else CacheSource(manifest, plan, data),
            keep_in_memory=data.keep_in_memory,
            left_out=left_out,
        )

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: SampleKey) -> Clip:
        """Load the clip of a key.

        Raises:
            UserError: neither the record nor those after it in the epoch's order can be used.
        """
        skipped: list[SkippedClip] = []
        for index in self._candidates(key):
            try:
                return self._load(index, key.position, tuple(skipped))
            except UserError as error:
                skipped.append(SkippedClip(self.manifest[index].clip_id, str(error)))
        raise self._nothing_usable(skipped)

    def check(self) -> int:
        """Check cheaply that the settings can be served: count what is too short, and load one clip.

        Returns:
            The number of records that are too short for their bucket; they will be skipped.

        Raises:
            UserError: no record is long enough, or none of the first that are can be loaded.
        """
        too_short = 0
        long_enough: list[int] = []
        records = (record for record in iter_records(self.manifest.path) if record.split == self.manifest.split)
        for index, record in enumerate(records):
            if self.plan.bucket_of[index] < 0:
                continue
            if record.num_frames < span(self._bucket(index).num_frames, self.frame_stride):
                too_short += 1
            elif len(long_enough) < MAX_TRIES:
                long_enough.append(index)
        if not long_enough:
            num_frames = self.plan.buckets[0].num_frames
            raise UserError(
                f"none of the {too_short} clips of split {self.manifest.split!r} has the "
                f"{span(num_frames, self.frame_stride)} frames that {num_frames} frames at stride "
                f"{self.frame_stride} need",
                where=self.manifest.path,
                remedy="lower the number of frames or the stride, or build a data set of longer clips",
            )
        skipped: list[SkippedClip] = []
        for index in long_enough:
            try:
                self._load(index, 0, ())
                return too_short
            except UserError as error:
                skipped.append(SkippedClip(self.manifest[index].clip_id, str(error)))
        raise self._nothing_usable(skipped)

    def _candidates(self, key: SampleKey) -> list[int]:
        """The key's record, then those that follow it in the order of the key's epoch and bucket."""
        members = self.members[key.bucket]
        epoch = (key.position if key.turn is None else key.turn) // len(members)
        order = members[epoch_order(epoch, len(members), self.seed)]
        place = int(np.flatnonzero(order == key.index)[0])
        return [int(order[(place + step) % len(members)]) for step in range(min(MAX_TRIES, len(members)))]

    def _load(self, index: int, position: int, skipped: tuple[SkippedClip, ...]) -> Clip:
        """Load one clip, or take the one that was kept; any reason against it is a `UserError`."""
        record = self.manifest[index]
        if record.clip_id in self.left_out:
            raise UserError("in too many steps that were not finite", where=record.clip_id, remedy="look at the clip")
        start, mirror = self._draw(record, self._bucket(index).num_frames, position)
        clip = None if self._kept is None else self._kept.get((index, start, mirror))
        if clip is None:
            clip = self._read(index, record, start, mirror)
            if self._kept is not None:
                self._kept[index, start, mirror] = clip
        return replace(clip, position=position, skipped=skipped)

    def _read(self, index: int, record: ClipRecord, start: int, mirror: bool) -> Clip:
        """Read, move and draw; the clip has no position yet."""
        bucket = self._bucket(index)
        chosen = start + self.frame_stride * np.arange(bucket.num_frames)
        geometry = Geometry((record.height, record.width), bucket.size, mirror)
        content = self.source.read(index, record, chosen, geometry)
        keypoints = geometry.apply_keypoints(content.keypoints)
        return Clip(
            clip_id=record.clip_id,
            position=-1,
            frames=_channels_first(content.frames),
            pose_maps=_channels_first(draw_pose_maps(keypoints, bucket.size)),
            keypoints=keypoints,
            fps=record.clip_fps / self.frame_stride,
            latents=None if content.latents is None else torch.from_numpy(content.latents),
            embedding=None if content.embedding is None else torch.from_numpy(content.embedding),
        )

    def _draw(self, record: ClipRecord, num_frames: int, position: int) -> tuple[int, bool]:
        """Start frame within the record, and whether to mirror."""
        slack = record.num_frames - span(num_frames, self.frame_stride)
        if slack < 0:
            raise UserError(
                f"{record.num_frames} frames, {num_frames} at stride {self.frame_stride} need "
                f"{span(num_frames, self.frame_stride)}",
                where=record.clip_id,
                remedy="lower the number of frames or the stride, or leave the clip out",
            )
        if not self.random_start:
            return 0, False
        random = np.random.default_rng([self.seed, position])
        start = int(random.integers(0, slack, endpoint=True))
        return start, bool(random.random() < self.flip_probability)

    def _bucket(self, index: int) -> Bucket:
        return self.plan.buckets[int(self.plan.bucket_of[index])]

    def _nothing_usable(self, skipped: list[SkippedClip]) -> UserError:
        reasons = "; ".join(f"{clip_id}: {reason.rstrip('.')}" for clip_id, reason in skipped)
        return UserError(
            f"no usable clip among {len(skipped)} records ({reasons})",
            where=self.manifest.path,
            remedy="mend or remove these clips and build the manifest again",
        )


def check_manifest_fits(manifest: Manifest, num_frames: int, frame_stride: int, size: tuple[int, int]) -> int:
    """Check cheaply, before any model is built, that the settings can be served from a manifest's videos.

    Args:
        manifest: the split to take clips from.
        num_frames: F, frames of a clip.
        frame_stride: distance of the frames taken, in frames of the record.
        size: (H, W) of the clip, pixels.

    Returns:
        The number of records that are too short; they will be skipped.

    Raises:
        UserError: no record is long enough, or none of the first that are can be loaded.
    """
    dataset = PoseClipDataset(manifest, num_frames=num_frames, frame_stride=frame_stride, size=size, random_start=False)
    return dataset.check()


def _channels_first(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
