"""Batches of demo clips for pretraining, from any step on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lisa_video.data.batch import ClipBatch
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.loader import build_loader
from lisa_video.data.manifest import Manifest, Split


@dataclass(frozen=True)
class DemoBatches:
    """A split of a demo data set as an endless, seekable stream of batches."""

    manifest: Path
    batch_size: int
    num_frames: int
    frame_stride: int
    size: tuple[int, int]
    seed: int
    num_workers: int = 1
    split: Split = "train"

    def starting_at(self, step: int) -> Iterator[ClipBatch]:
        """Batches of steps `step`, `step + 1`, ..."""
        manifest = Manifest(self.manifest, self.split)
        dataset = PoseClipDataset(
            manifest,
            num_frames=self.num_frames,
            frame_stride=self.frame_stride,
            size=self.size,
            flip_probability=0.5,
            seed=self.seed,
        )
        loader = build_loader(
            dataset,
            num_clips=len(manifest),
            micro_batch_size=self.batch_size,
            rank=0,
            world_size=1,
            start_position=step * self.batch_size,
            seed=self.seed,
            num_workers=self.num_workers,
        )
        return iter(loader)
