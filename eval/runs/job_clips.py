"""The clips of a job, by their place among the held-out ones, whether they were sampled or are the truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
from jaxtyping import UInt8

from eval.runs.generate import GenerationJob, held_out, load_generated
from lisa_video.data.batch import SampleKey
from lisa_video.data.manifest import Manifest


@final
class JobClips:
    """Frames of a job's clips; places of clips that could not be used hold None.

    Args:
        job: whose clips; they must have been sampled.
    """

    def __init__(self, job: GenerationJob) -> None:
        self.job, self.folder = job, job.folder
        self._manifest = Manifest(job.config.data.manifest, "val")
        self._dataset = held_out(job.config) if job.source == "truth" else None

    def __len__(self) -> int:
        return min(self.job.num_clips, len(self._manifest))

    def clip_id(self, place: int) -> str:
        """Name of the clip at a place."""
        return self._manifest[place].clip_id

    def fps(self, place: int) -> float:
        """Frames per second of the clip at a place."""
        return self._manifest[place].clip_fps / self.job.config.data.frame_stride

    def frames(self, place: int) -> UInt8[np.ndarray, "F H W 3"] | None:
        """The frames at a place, RGB; None if the clip could not be used."""
        if self._dataset is not None:
            clip = self._dataset[SampleKey(place, place)]
            return None if clip.skipped else clip.array
        if not (self.folder / f"{self.clip_id(place)}.npz").is_file():
            return None
        return load_generated(self.folder, self.clip_id(place))

    def __iter__(self) -> Iterator[tuple[str, UInt8[np.ndarray, "F H W 3"] | None]]:
        for place in range(len(self)):
            yield self.clip_id(place), self.frames(place)
