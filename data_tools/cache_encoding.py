"""From a record to the records of the cache: decoding in loader processes, encoding in this one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data_tools.cache_parts import EncodedClip
from lisa_video.config.schema import DataConfig
from lisa_video.data.cache import CacheFacts
from lisa_video.data.cache_source import shortest_span
from lisa_video.data.geometry import Geometry
from lisa_video.data.manifest import Manifest
from lisa_video.data.sources import VideoSource
from lisa_video.errors import UserError
from lisa_video.models.backbone import Codec
from lisa_video.processes import end_with_parent

_CHUNK = 16  # frames on the device at once
_LOSSLESS = [cv2.IMWRITE_WEBP_QUALITY, 101]  # above 100 is lossless; two thirds of PNG's size, decoded as fast


class Job(NamedTuple):
    """A clip to encode: number in the split, key in the cache, and (H, W)."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    key: bytes
    size: tuple[int, int]


class _Decoded(NamedTuple):
    """A clip before the codec, or the reason why there is none.

    Attributes:
        frames: (F, H, W, 3) uint8, not mirrored; a tensor, since these pass between processes without a copy.
        pictures: lossless pictures of the frames that may become references, from the first on.
        poses: bytes of the keypoint file.
        reason: empty unless the clip cannot be used.
    """

    frames: Tensor
    pictures: tuple[bytes, ...]
    poses: bytes
    reason: str = ""


def encode_clips(
    data: DataConfig, codec: Codec, dtype: str, jobs: Sequence[Job]
) -> Iterator[tuple[Job, EncodedClip | str]]:
    """Encode whole records, in order; yields the reason in the place of a clip that cannot be used.

    Args:
        data: where the records are, whether they are mirrored, and the number of loader processes.
        codec: on its device.
        dtype: of what is kept.
        jobs: what to encode.
    """
    workers = data.num_workers if len(jobs) > 1 else 0
    decoding = DataLoader(
        _Decoding(Manifest(data.manifest, "train"), jobs, shortest_span(data)),
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="forkserver" if workers else None,
        worker_init_fn=_start_worker,
        collate_fn=_as_it_is,  # type: ignore[arg-type]  # without batches it gets one item, not a list
    )
    for job, clip in zip(jobs, decoding, strict=True):
        try:
            yield job, clip.reason or _encode(clip, codec, dtype, mirrored=data.flip_probability > 0)
        except UserError as error:
            yield job, str(error)


def _encode(clip: _Decoded, codec: Codec, dtype: str, *, mirrored: bool) -> EncodedClip:
    sizes = np.array([len(picture) for picture in clip.pictures])
    picture = np.zeros((len(clip.frames), 2), np.int64)
    picture[: len(sizes)] = np.stack([np.cumsum(sizes) - sizes, sizes], axis=1)
    fields = _encode_frames(clip.frames, len(sizes), codec, dtype)
    if mirrored:
        turned = _encode_frames(clip.frames.flip(dims=(2,)), len(sizes), codec, dtype)
        fields |= {f"{name}_mirrored": values for name, values in turned.items()}
    return EncodedClip({**fields, "picture": picture}, b"".join(clip.pictures), clip.poses)


def _encode_frames(frames: Tensor, references: int, codec: Codec, dtype: str) -> dict[str, np.ndarray]:
    """Latents of all frames, and embeddings of the first that may be references (zeros for the others)."""
    device = next(codec.parameters()).device
    latents, embeddings = [], []
    for start in range(0, len(frames), _CHUNK):
        pixels = frames[start : start + _CHUNK].to(device).permute(0, 3, 1, 2).contiguous()
        pixels = pixels.float().div_(127.5).sub_(1)  # as `collate` does
        latents.append(codec.encode_video(pixels[None])[0])
        if start < references:
            embeddings.append(codec.embed_reference(pixels[: references - start]))
    embedding = _kept(torch.cat(embeddings), dtype)
    padded = np.zeros((len(frames), *embedding.shape[1:]), embedding.dtype)
    padded[:references] = embedding
    return {"latents": _kept(torch.cat(latents), dtype), "embedding": padded}


def _kept(values: Tensor, dtype: str) -> np.ndarray:
    kept = values.cpu().numpy().astype(dtype)
    if not np.isfinite(kept).all():
        raise UserError(
            f"values of up to {values.abs().max().item():.3g}, which {dtype} cannot hold",
            remedy="build the cache in float32",
        )
    return kept


class _Decoding(Dataset[_Decoded]):
    """Whole records, decoded, moved to the clip's size, and their pictures packed."""

    def __init__(self, manifest: Manifest, jobs: Sequence[Job], span: int) -> None:
        self.manifest, self.jobs, self.span = manifest, jobs, span
        self.source = VideoSource(manifest)

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, number: int) -> _Decoded:
        job = self.jobs[number]
        record = self.manifest[job.index]
        geometry = Geometry((record.height, record.width), job.size, mirror=False)
        try:
            frames = self.source.read(job.index, record, np.arange(record.num_frames), geometry).frames
            poses = self.manifest.resolve(record.keypoints).read_bytes()
        except UserError as error:
            return _Decoded(torch.empty(0), (), b"", str(error))
        pictures = tuple(_pack(frame) for frame in frames[: record.num_frames - self.span + 1])
        return _Decoded(torch.from_numpy(frames), pictures, poses)


def estimate_bytes(codec: Codec, manifest: Manifest, jobs: Sequence[Job], facts: CacheFacts, samples: int = 4) -> int:
    """Bytes that the jobs will take: latents and embeddings exactly, pictures and poses by a few of the clips."""
    picture_bytes, pixels, poses = 0, 0, 0
    for job in jobs[:: max(1, len(jobs) // samples)][:samples]:
        record = manifest[job.index]
        geometry = Geometry((record.height, record.width), job.size, mirror=False)
        try:
            frames = VideoSource(manifest).read(job.index, record, np.array([record.num_frames // 2]), geometry).frames
            poses = max(poses, manifest.resolve(record.keypoints).stat().st_size)
        except UserError:
            continue
        picture_bytes, pixels = picture_bytes + len(_pack(frames[0])), pixels + job.size[0] * job.size[1]
    example = next(codec.parameters())
    tokens = codec.embed_reference(torch.zeros(1, 3, *jobs[0].size, device=example.device)).numel()
    number = np.dtype(facts.dtype).itemsize * (2 if facts.mirrored else 1)
    total = 0
    for job in jobs:
        num_frames, area = manifest[job.index].num_frames, job.size[0] * job.size[1]
        latents = codec.latent_channels * area // codec.latent_stride**2
        pictures = (num_frames - facts.span + 1) * area * picture_bytes // max(pixels, 1)
        total += num_frames * number * (latents + tokens) + pictures + poses
    return total


def _pack(frame: np.ndarray) -> bytes:
    done, packed = cv2.imencode(".webp", frame[:, :, ::-1], _LOSSLESS)
    assert done
    return packed.tobytes()


def _as_it_is(clip: _Decoded) -> _Decoded:
    return clip


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    end_with_parent()
