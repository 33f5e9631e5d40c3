"""Laws of batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lisa_video.data.batch import Clip, SkippedClip, collate
from lisa_video.pose.keypoints import Keypoints


def _clip(number, frames=3, height=4, width=6, skipped=()):
    keypoints = Keypoints(
        np.full((frames, 1, 17, 2), number, np.float32), np.ones((frames, 1, 17), np.float32), np.zeros(1, np.int64)
    )
    pixels = torch.arange(frames * 3 * height * width).reshape(frames, 3, height, width) % 256
    pixels = ((pixels + number) % 256).to(torch.uint8)
    return Clip(f"clip{number}", 10 + number, pixels, 255 - pixels, keypoints, 8.0 + number, skipped)


def test_ranges_and_order():
    clips = [_clip(0), _clip(40)]
    batch = collate(clips)
    assert batch.clip_ids == ("clip0", "clip40") and batch.positions.tolist() == [10, 50]
    assert batch.positions.dtype == torch.int64 and batch.fps.tolist() == [8, 48]
    for index, clip in enumerate(clips):
        assert torch.equal(((batch.frames[index] + 1) * 127.5).round().to(torch.uint8), clip.frames)
        assert torch.equal((batch.pose_maps[index] * 255).round().to(torch.uint8), clip.pose_maps)
        assert batch.keypoints[index] is clip.keypoints
    black_and_white = collate([_clip(0, height=16, width=16)])
    assert (black_and_white.frames.min(), black_and_white.frames.max()) == (-1, 1)
    assert (black_and_white.pose_maps.min(), black_and_white.pose_maps.max()) == (0, 1)


def test_reference_is_the_first_frame():
    batch = collate([_clip(0), _clip(1)])
    assert torch.equal(batch.reference, batch.frames[:, 0]) and batch.reference.shape == (2, 3, 4, 6)


def test_skipped_clips_are_all_reported():
    first, second = SkippedClip("x", "short"), SkippedClip("y", "damaged")
    assert collate([_clip(0, skipped=(first,)), _clip(1), _clip(2, skipped=(second,))]).skipped == (first, second)


def test_clips_of_two_sizes_are_refused():
    with pytest.raises(RuntimeError, match="equal size"):
        collate([_clip(0), _clip(1, width=8)])


TENSORS = ("positions", "frames", "pose_maps", "fps")


def test_to_moves_every_tensor():
    batch = collate([_clip(0)]).to("meta")
    assert all(getattr(batch, name).device.type == "meta" for name in TENSORS)
    assert batch.clip_ids == ("clip0",) and len(batch.keypoints) == 1


def test_pin_memory_pins_every_tensor(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 100)  # no GPU is needed to see the call
    batch = collate([_clip(0)])
    pinned = batch.pin_memory()
    assert all(torch.equal(getattr(pinned, name), getattr(batch, name) + 100) for name in TENSORS)


def _cached(number):
    clip = _clip(number)
    latents, embedding = torch.full((3, 4, 1, 1), number + 0.5), torch.full((1, 8), number + 0.25)
    return replace(clip, frames=clip.frames[:1], latents=latents.half(), embedding=embedding.half())


def test_cached_clips_keep_their_reference_and_bring_latents():
    batch = collate([_cached(0), _cached(2)])
    assert torch.equal(batch.reference, collate([_clip(0), _clip(2)]).reference)
    assert batch.frames.shape == (2, 1, 3, 4, 6) and batch.pose_maps.shape == (2, 3, 3, 4, 6)
    assert batch.latents.dtype == batch.embedding.dtype == torch.float32
    assert batch.latents[:, 0, 0, 0, 0].tolist() == [0.5, 2.5] and batch.embedding[:, 0, 0].tolist() == [0.25, 2.25]
    moved = batch.to("meta")
    assert moved.latents.device.type == moved.embedding.device.type == "meta"
    assert collate([_clip(0)]).latents is None
