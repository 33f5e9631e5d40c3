"""`PoseClipDataset`: from a record of the manifest to frames, keypoints and pose maps of one clip."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from lisa_video.data.batch import Clip, SampleKey, SkippedClip
from lisa_video.data.geometry import Geometry
from lisa_video.data.loader import epoch_order
from lisa_video.data.manifest import ClipRecord, Manifest, iter_records
from lisa_video.data.video_io import read_frames
from lisa_video.errors import UserError
from lisa_video.pose.keypoints import load_keypoints
from lisa_video.pose.render import draw_pose_maps

MAX_TRIES = 8
"""Records tried for one sample: so many broken ones in a row mean a broken data set."""


class PoseClipDataset(Dataset[Clip]):
    """Clips of a fixed length and size, a pure function of (settings, key).

    A clip that cannot be used (too short, unreadable, not as the manifest says) is skipped, and the next record in
    the order of the same epoch takes its place; the returned clip lists what was skipped and why.

    Args:
        manifest: the split to take clips from.
        num_frames: F, frames of a clip.
        frame_stride: distance of the frames taken, in frames of the record.
        size: (H, W) of the clip, pixels.
        flip_probability: how often a clip is mirrored.
        seed: of start frames, mirroring, and the order of replacements; the one given to the loader.
        random_start: draw the first frame and mirroring for each sample (training); else take the record's first
            frames as they are (validation).
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
    ) -> None:
        self.manifest, self.num_frames, self.frame_stride, self.size = manifest, num_frames, frame_stride, size
        self.flip_probability, self.seed, self.random_start = flip_probability, seed, random_start

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: SampleKey) -> Clip:
        """Load the clip of a key.

        Raises:
            UserError: neither the record nor those after it in the epoch's order can be used.
        """
        skipped: list[SkippedClip] = []
        for index in self._candidates(key):
            record = self.manifest[index]
            try:
                return self._load(record, key.position, tuple(skipped))
            except UserError as error:
                skipped.append(SkippedClip(record.clip_id, str(error)))
        reasons = "; ".join(f"{clip_id}: {reason.rstrip('.')}" for clip_id, reason in skipped)
        raise UserError(
            f"no usable clip among {len(skipped)} records ({reasons})",
            where=self.manifest.path,
            remedy="mend or remove these clips and build the manifest again",
        )

    def _candidates(self, key: SampleKey) -> list[int]:
        """The key's record, then those that follow it in the order of the key's epoch."""
        num_clips = len(self.manifest)
        order = epoch_order(key.position // num_clips, num_clips, self.seed)
        place = int(np.flatnonzero(order == key.index)[0])
        return [int(order[(place + step) % num_clips]) for step in range(min(MAX_TRIES, num_clips))]

    def _load(self, record: ClipRecord, position: int, skipped: tuple[SkippedClip, ...]) -> Clip:
        """Read, move and draw one clip; any reason against it is a `UserError`."""
        start, mirror = self._draw(record, position)
        chosen = start + self.frame_stride * np.arange(self.num_frames)
        keypoints = load_keypoints(self.manifest.resolve(record.keypoints))
        if keypoints.num_frames != record.num_frames:
            raise UserError(
                f"{keypoints.num_frames} frames of keypoints for a clip of {record.num_frames} frames",
                where=record.keypoints,
                remedy="extract the poses of this clip again",
            )
        frames = read_frames(self.manifest.resolve(record.video), record.in_video(chosen))
        if frames.shape[1:3] != (record.height, record.width):
            raise UserError(
                f"frames of {frames.shape[2]}x{frames.shape[1]} pixels, the manifest says "
                f"{record.width}x{record.height}, in whose pixels the keypoints are",
                where=record.video,
                remedy="build the manifest again",
            )
        geometry = Geometry((record.height, record.width), self.size, mirror)
        keypoints = geometry.apply_keypoints(keypoints.frames(chosen))
        return Clip(
            clip_id=record.clip_id,
            position=position,
            frames=_channels_first(geometry.apply_frames(frames)),
            pose_maps=_channels_first(draw_pose_maps(keypoints, self.size)),
            keypoints=keypoints,
            fps=record.clip_fps / self.frame_stride,
            skipped=skipped,
        )

    def _draw(self, record: ClipRecord, position: int) -> tuple[int, bool]:
        """Start frame within the record, and whether to mirror."""
        slack = record.num_frames - _span(self.num_frames, self.frame_stride)
        if slack < 0:
            raise UserError(
                f"{record.num_frames} frames, {self.num_frames} at stride {self.frame_stride} need "
                f"{_span(self.num_frames, self.frame_stride)}",
                where=record.clip_id,
                remedy="lower the number of frames or the stride, or leave the clip out",
            )
        if not self.random_start:
            return 0, False
        random = np.random.default_rng([self.seed, position])
        start = int(random.integers(0, slack, endpoint=True))
        return start, bool(random.random() < self.flip_probability)


def check_manifest_fits(manifest: Manifest, num_frames: int, frame_stride: int, size: tuple[int, int]) -> int:
    """Check cheaply, before any model is built, that the settings can be served from a manifest.

    Reads the records as a stream and tries one clip: the first that is long enough.

    Args:
        manifest: the split to take clips from.
        num_frames: F, frames of a clip.
        frame_stride: distance of the frames taken, in frames of the record.
        size: (H, W) of the clip, pixels.

    Returns:
        The number of records that are too short; they will be skipped.

    Raises:
        UserError: no record is long enough, or the first that is cannot be loaded.
    """
    too_short, first_fit = 0, None
    records = (record for record in iter_records(manifest.path) if record.split == manifest.split)
    for index, record in enumerate(records):
        if record.num_frames < _span(num_frames, frame_stride):
            too_short += 1
        elif first_fit is None:
            first_fit = index
    if first_fit is None:
        raise UserError(
            f"none of the {too_short} clips of split {manifest.split!r} has the "
            f"{_span(num_frames, frame_stride)} frames that {num_frames} frames at stride {frame_stride} need",
            where=manifest.path,
            remedy="lower the number of frames or the stride, or build a data set of longer clips",
        )
    probe = PoseClipDataset(manifest, num_frames=num_frames, frame_stride=frame_stride, size=size, random_start=False)
    probe._load(manifest[first_fit], 0, ())
    return too_short


def _span(num_frames: int, frame_stride: int) -> int:
    """Frames of a record from the first to the last of a clip, both included."""
    return (num_frames - 1) * frame_stride + 1


def _channels_first(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
