"""Condition dropout in its published bands, and encoding as a function of (seed, position) only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lisa_video.conditioning import drop_image, drop_pose, encode_batch
from lisa_video.config.schema import ConditioningConfig
from lisa_video.data.batch import ClipBatch
from lisa_video.models.backbone import Condition
from lisa_video.pose.keypoints import Keypoints
from lisa_video.randomness import normal, uniform

NEVER = ConditioningConfig(image_dropout=0.0, pose_dropout=0.0)


def clip_batch(positions: tuple[int, ...]) -> ClipBatch:
    """Each clip a function of its position."""
    clips = [torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(p)) for p in positions]
    nobody = Keypoints(np.zeros((2, 1, 17, 2), np.float32), np.zeros((2, 1, 17), np.float32), np.zeros(1, np.int64))
    return ClipBatch(
        clip_ids=tuple(f"clip-{p}" for p in positions),
        positions=torch.tensor(positions),
        frames=torch.stack([clip[0] * 2 - 1 for clip in clips]),
        pose_maps=torch.stack([clip[1] for clip in clips]),
        fps=torch.tensor([8.0 + p for p in positions]),
        keypoints=(nobody,) * len(positions),
    )


def ones(batch: int) -> Condition:
    return Condition(torch.ones(batch, 4, 8, 8), torch.ones(batch, 1, 64), torch.ones(batch, 3))


def test_image_dropout_bands():
    u = torch.tensor([0.0, 0.0999, 0.1, 0.1999, 0.2, 0.2999, 0.3, 0.9999], dtype=torch.float64)
    dropped = drop_image(ones(8), u, 0.1)
    #            u < 2p: embedding off;  p <= u < 3p: latents off (3 * 0.1 is a little more than 0.3 in binary)
    assert dropped.image_embedding[:, 0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert dropped.image_latents[:6, 0, 0, 0].tolist() == [1, 1, 0, 0, 0, 0]
    assert dropped.image_latents[7, 0, 0, 0] == 1
    for mask, whole in ((dropped.image_embedding, (1, 2)), (dropped.image_latents, (1, 2, 3))):
        assert torch.equal(mask.amin(dim=whole), mask.amax(dim=whole))  # whole clips
    assert (dropped.time_ids == 1).all()


def test_each_kind_of_dropout_takes_its_tenth():
    u = uniform(0, range(4000), "image dropout")
    dropped = drop_image(ones(4000), u, 0.1)
    no_embedding, no_latents = dropped.image_embedding[:, 0, 0] == 0, dropped.image_latents[:, 0, 0, 0] == 0
    for kind in (no_embedding & ~no_latents, no_embedding & no_latents, ~no_embedding & no_latents):
        assert kind.float().mean().item() == pytest.approx(0.1, abs=0.015)


def test_probability_zero_drops_nothing():
    u = torch.linspace(0, 1, 11)
    dropped = drop_image(ones(11), u, 0.0)
    assert (dropped.image_embedding == 1).all() and (dropped.image_latents == 1).all()
    assert (drop_pose(torch.ones(11, 2, 3, 4, 4), u, 0.0) == 1).all()


def test_pose_dropout_blanks_whole_clips():
    dropped = drop_pose(torch.ones(4, 2, 3, 4, 4), torch.tensor([0.0, 0.2499, 0.25, 0.9]), 0.25)
    assert dropped.flatten(1).amin(dim=1).tolist() == dropped.flatten(1).amax(dim=1).tolist() == [0, 0, 1, 1]


def test_encoding_does_not_depend_on_the_batch(tiny_parts):
    settings = ConditioningConfig(image_dropout=0.2, pose_dropout=0.3)
    together = encode_batch(tiny_parts.codec, clip_batch((3, 4, 5, 6)), settings, seed=0)
    apart = encode_batch(tiny_parts.codec, clip_batch((6, 4)), settings, seed=0)
    for whole, part in zip(
        (together.latents, *together.condition, together.pose_maps),
        (apart.latents, *apart.condition, apart.pose_maps),
        strict=True,
    ):
        torch.testing.assert_close(whole[[3, 1]], part, rtol=1e-4, atol=1e-5)
    assert together.positions == (3, 4, 5, 6) and apart.positions == (6, 4)


def test_without_dropout_everything_arrives(tiny_parts):
    batch = clip_batch((0, 1))
    encoded = encode_batch(tiny_parts.codec, batch, NEVER, seed=0)
    assert torch.equal(encoded.pose_maps, batch.pose_maps)
    torch.testing.assert_close(encoded.latents, tiny_parts.codec.encode_video(batch.frames))
    expected = tiny_parts.codec.encode_reference(
        batch.frames[:, 0],
        normal((3, 32, 32), 0, (0, 1), "reference noise"),
        batch.fps,
        noise_aug_strength=0.02,
        motion_bucket_id=127.0,
    )
    for ours, theirs in zip(encoded.condition, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert encoded.condition.time_ids[:, 0].tolist() == [7.0, 8.0]  # fps - 1, of each clip


def test_reference_noise_is_not_the_noise_of_the_target():
    a, b = (normal((3, 8, 8), 0, (0,), purpose) for purpose in ("reference noise", "noise"))
    assert abs(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) < 0.2


def test_pose_and_image_are_dropped_independently():
    u_image, u_pose = (uniform(0, range(2000), purpose) for purpose in ("image dropout", "pose dropout"))
    assert abs(torch.corrcoef(torch.stack([u_image, u_pose]))[0, 1]) < 0.08


def test_dropout_settings_arrive(tiny_parts):
    settings, positions = ConditioningConfig(image_dropout=0.3, pose_dropout=1.0), tuple(range(8))
    encoded = encode_batch(tiny_parts.codec, clip_batch(positions), settings, seed=0)
    assert encoded.pose_maps.count_nonzero() == 0
    u = uniform(0, positions, "image dropout")
    assert torch.equal(encoded.condition.image_embedding.flatten(1).any(dim=1), u >= 0.6)
    assert torch.equal(encoded.condition.image_latents.flatten(1).any(dim=1), (u < 0.3) | (u >= 0.9))
    assert (u < 0.3).any() and (u >= 0.9).any()  # the bands are not empty here


def test_motion_bucket_and_noise_strength_arrive(tiny_parts):
    settings = NEVER.model_copy(update={"motion_bucket_id": 80.0, "noise_aug_strength": 0.1})
    encoded = encode_batch(tiny_parts.codec, clip_batch((0,)), settings, seed=0)
    assert encoded.condition.time_ids[0].tolist() == [7.0, 80.0, pytest.approx(0.1)]
