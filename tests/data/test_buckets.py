"""Which bucket a clip goes to, and batches of several shapes."""

from itertools import islice

import numpy as np
import pytest

from lisa_video.config.schema import DataConfig
from lisa_video.data.buckets import Bucket, choose_bucket, plan_buckets
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.loader import build_loader
from lisa_video.data.manifest import ClipRecord
from lisa_video.errors import UserError

WIDE, TALL, LONG, SQUARE = Bucket(32, 64, 4), Bucket(64, 32, 4), Bucket(32, 64, 9), Bucket(48, 48, 4)


def record(height, width, num_frames):
    return ClipRecord(
        clip_id="a", video="a.mp4", start_frame=0, num_frames=num_frames, fps=24, width=width, height=height,
        keypoints="a.npz", split="train", source="a", source_digest="sha256:" + "0" * 64,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "buckets", "expected"),
    [
        ((64, 128, 20), [SQUARE, WIDE, TALL], (1, "")),  # the nearest shape
        ((128, 64, 20), [SQUARE, WIDE, TALL], (2, "")),
        ((90, 100, 20), [SQUARE, WIDE, TALL], (0, "")),
        ((64, 128, 20), [WIDE, LONG], (1, "")),  # of equal shapes the longer one
        ((64, 128, 8), [WIDE, LONG], (0, "")),  # if there are frames for it
        ((64, 128, 20), [WIDE, Bucket(64, 128, 4)], (1, "")),  # of equal shape and length the larger one
        ((40, 80, 20), [WIDE, Bucket(64, 128, 4)], (0, "")),  # if it does not blow the frames up
        ((64, 128, 5), [TALL, LONG], (0, "")),  # rather another shape than too few frames
        ((64, 128, 3), [WIDE, LONG], (None, "frames")),
        ((20, 40, 9), [WIDE, LONG], (None, "pixels")),
        ((26, 52, 9), [WIDE], (0, "")),  # 32 / 26 is below 1.25
        ((25, 50, 9), [WIDE], (None, "pixels")),
    ],
)
def test_the_nearest_bucket_by_shape_then_by_frames(shape, buckets, expected):
    assert choose_bucket(record(*shape), buckets, 1, 1.25) == expected


def test_the_stride_counts():
    assert choose_bucket(record(64, 128, 7), [WIDE], 2, 1.25) == (0, "")
    assert choose_bucket(record(64, 128, 6), [WIDE], 2, 1.25) == (None, "frames")


@pytest.fixture
def shapes(mini_clips):
    """Three wide clips, two tall ones, one short and one small one; a config with buckets for them."""
    sizes = {"w0": (40, 80), "t0": (96, 48), "w1": (64, 128), "small": (16, 32), "t1": (64, 32), "w2": (32, 64)}
    records = [mini_clips.record(name, size=size, length=12) for name, size in sizes.items()]
    manifest = mini_clips.manifest([*records, mini_clips.record("short", size=(64, 128), length=3)])
    data = DataConfig(manifest=str(manifest.path), buckets=(WIDE, TALL, SQUARE), flip_probability=0.5, num_workers=0)
    return manifest, data


def test_a_plan_counts_who_goes_where(shapes):
    manifest, data = shapes
    plan = plan_buckets(manifest, data)
    assert plan.bucket_of.tolist() == [0, 1, 0, -1, 1, 0, -1]
    assert [found.tolist() for found in plan.members] == [[0, 2, 5], [1, 4]]  # nobody in the square one
    assert plan.describe() == "64x32x4: 3, 32x64x4: 2, 48x48x4: 0, too short: 1, too small: 1"
    with pytest.raises(UserError, match=r"no clip .* fits a bucket \(64x32x99: 0, too short: 7\)"):
        plan_buckets(manifest, data.model_copy(update={"buckets": ((32, 64, 99),)}))


def batches(data, count, **changes):
    dataset = PoseClipDataset.for_training(data, seed=3)
    arguments = {"num_clips": len(dataset), "members": dataset.members, "micro_batch_size": 2, "seed": 3, **changes}
    return list(islice(build_loader(dataset, **arguments), count))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_of_one_shape_on_all_ranks(shapes, num_workers):
    whole = batches(shapes[1], 10)
    assert {tuple(batch.frames.shape[1:]) for batch in whole} == {(4, 3, 32, 64), (4, 3, 64, 32)}
    assert all(batch.pose_maps.shape == batch.frames.shape and not batch.skipped for batch in whole)
    ranks = [
        batches(shapes[1], 7, micro_batch_size=1, rank=rank, world_size=2, start_position=6, num_workers=num_workers)
        for rank in range(2)
    ]
    for step, batch in enumerate(whole[3:]):
        assert batch.clip_ids == ranks[0][step].clip_ids + ranks[1][step].clip_ids
        assert np.array_equal(batch.frames[1], ranks[1][step].frames[0])


def test_a_broken_clip_is_replaced_within_its_bucket(shapes):
    (shapes[0].path.parent / "t0.mp4").write_bytes(b"")
    seen = batches(shapes[1], 10)
    assert all(batch.frames.shape[-2:] == (64, 32) for batch in seen if batch.skipped)
    assert {skipped.clip_id for batch in seen for skipped in batch.skipped} == {"t0"}


def test_checks_look_into_the_buckets(shapes):
    manifest, data = shapes
    assert PoseClipDataset.for_training(data, 0).check() == 0
    for name in ("w0", "w1", "w2", "t0", "t1"):
        (manifest.path.parent / f"{name}.mp4").unlink()
    with pytest.raises(UserError, match="no usable clip among 5 records"):
        PoseClipDataset.for_training(data, 0).check()
