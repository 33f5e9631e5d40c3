"""`Clip` and `ClipBatch`: what the data room hands to training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from lisa_video.pose.keypoints import Keypoints


class SampleKey(NamedTuple):
    """Which clip to load, and for which sample of the run.

    Attributes:
        position: number of the sample since the start of training, over all ranks; also the seed key of all of the
            sample's random draws, so they depend neither on the rank nor on the number of ranks or workers.
        index: number of the record in the manifest's split.
        bucket: number of its bucket; 0 where all clips are of one size and length.
        turn: place of the sample in the endless row of its bucket's clips; None: its position.
    """

    position: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    bucket: int = 0
    turn: int | None = None


class SkippedClip(NamedTuple):
    """A clip that could not be used, and why; another one took its place."""

    clip_id: str
    reason: str


@dataclass(frozen=True)
class Clip:
    """One sample as a worker loads it.

    Attributes:
        clip_id: name of the record.
        position: see `SampleKey`.
        frames: (N, 3, H, W) uint8 RGB: all F frames, or the reference alone if the latents are known.
        pose_maps: (F, 3, H, W) uint8 RGB, drawn from `keypoints`.
        keypoints: the F poses, in pixels of `frames`.
        fps: frames per second of the clip, after the strides of record and settings.
        skipped: clips that came before this one at its position and could not be used.
        latents: (F, C, h, w) float16 or float32, what the codec makes of the frames; None: not encoded yet.
        embedding: (T, D) likewise, tokens of the reference.
    """

    clip_id: str
    position: int
    frames: UInt8[Tensor, "N 3 H W"]
    pose_maps: UInt8[Tensor, "F 3 H W"]
    keypoints: Keypoints
    fps: float
    skipped: tuple[SkippedClip, ...] = ()
    latents: Float[Tensor, "F C h w"] | None = None
    embedding: Float[Tensor, "T D"] | None = None

    @property
    def array(self) -> UInt8[np.ndarray, "N H W 3"]:
        """The frames that are there as an array, colours last."""
        frames: np.ndarray = self.frames.permute(0, 2, 3, 1).numpy()
        return frames


@dataclass(frozen=True)
class ClipBatch:
    """B clips of equal length and size.

    Attributes:
        clip_ids: B names.
        positions: (B,) int64, see `SampleKey`.
        frames: (B, N, 3, H, W) pixels in [-1, 1]: all F frames, or the reference alone if the latents are known.
        pose_maps: (B, F, 3, H, W) in [0, 1].
        fps: (B,) frames per second.
        keypoints: B times F poses, in pixels of `frames`; they stay on the CPU.
        skipped: clips that were to be in this batch and could not be used.
        latents: (B, F, C, h, w) scaled latents of the frames; None: not encoded yet.
        embedding: (B, T, D) tokens of the reference; None likewise.
    """

    clip_ids: tuple[str, ...]
    positions: Int64[Tensor, " B"]
    frames: Float[Tensor, "B N 3 H W"]
    pose_maps: Float[Tensor, "B F 3 H W"]
    fps: Float[Tensor, " B"]
    keypoints: tuple[Keypoints, ...]
    skipped: tuple[SkippedClip, ...] = ()
    latents: Float[Tensor, "B F C h w"] | None = None
    embedding: Float[Tensor, "B T D"] | None = None

    @property
    def reference(self) -> Float[Tensor, "B 3 H W"]:
        """The first frame of each clip, in [-1, 1]: the picture that the video is made from."""
        return self.frames[:, 0]

    def to(self, device: torch.device | str) -> ClipBatch:
        """The batch with its tensors on a device; copies from pinned memory to a GPU do not wait."""
        # The other way round nobody would wait for the copy to end before reading it.
        no_wait = torch.device(device).type == "cuda"
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=no_wait))

    def pin_memory(self) -> ClipBatch:
        """The batch in page-locked memory; torch's DataLoader looks for a method of this name."""
        return self._with_tensors(lambda tensor: tensor.pin_memory())

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> ClipBatch:
        changed: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)


def collate(items: Sequence[Clip]) -> ClipBatch:
    """Join clips of equal length and size; uint8 [0, 255] -> frames in [-1, 1], pose maps in [0, 1]."""
    latents = [clip.latents for clip in items if clip.latents is not None]
    embeddings = [clip.embedding for clip in items if clip.embedding is not None]
    return ClipBatch(
        clip_ids=tuple(clip.clip_id for clip in items),
        positions=torch.tensor([clip.position for clip in items], dtype=torch.int64),
        frames=torch.stack([clip.frames for clip in items]).float().div_(127.5).sub_(1),
        pose_maps=torch.stack([clip.pose_maps for clip in items]).float().div_(255),
        fps=torch.tensor([clip.fps for clip in items], dtype=torch.float32),
        keypoints=tuple(clip.keypoints for clip in items),
        latents=torch.stack(latents).float() if latents else None,
        embedding=torch.stack(embeddings).float() if embeddings else None,
        skipped=tuple(skipped for clip in items for skipped in clip.skipped),
    )
