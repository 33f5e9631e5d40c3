"""Every clip of a split in the memory of the device: encoded once, drawn once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from lisa_video.config.schema import DataConfig
from lisa_video.data.batch import SampleKey, collate
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.manifest import Manifest, Split
from lisa_video.models.backbone import Codec

_AT_ONCE = 32


class Clips(NamedTuple):
    """N clips, their first frames as references; nothing is mirrored.

    Attributes:
        ids: N names.
        latents: (N, F, C, h, w) scaled latents.
        pictures: (N, 3, H, W) references in [-1, 1].
        embedding: (N, T, D) their tokens.
        pose_maps: (N, F, 3, H, W) uint8.
        fps: (N,).
    """

    ids: tuple[str, ...]
    latents: Tensor
    pictures: Tensor
    embedding: Tensor
    pose_maps: Tensor
    fps: Tensor


@torch.no_grad()
def load_clips(data: DataConfig, split: Split, codec: Codec, device: torch.device, at_most: int | None = None) -> Clips:
    """Decode, draw and encode the first clips of a split; the codec must be on the device."""
    manifest = Manifest(data.manifest, split)
    dataset = PoseClipDataset(
        manifest, num_frames=data.num_frames, frame_stride=data.frame_stride, size=data.size, random_start=False
    )
    keys = [SampleKey(index, index) for index in range(min(len(manifest), at_most or len(manifest)))]
    ids: list[str] = []
    parts: list[tuple[Tensor, ...]] = []
    bar = tqdm(total=len(keys), desc=f"encode {split}", unit="clip")
    with ThreadPoolExecutor(8) as pool, bar:
        for start in range(0, len(keys), _AT_ONCE):
            batch = collate(list(pool.map(dataset.__getitem__, keys[start : start + _AT_ONCE]))).to(device)
            ids += batch.clip_ids
            pose_maps = (batch.pose_maps * 255).round().to(torch.uint8)
            embedding = codec.embed_reference(batch.reference)
            parts.append((codec.encode_video(batch.frames), batch.reference, embedding, pose_maps, batch.fps))
            bar.update(len(batch.clip_ids))
    return Clips(tuple(ids), *(torch.cat(column) for column in zip(*parts, strict=True)))
