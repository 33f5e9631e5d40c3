"""The order of samples: resume, ranks and workers change nothing."""

from itertools import chain, islice

import numpy as np
import pytest
import torch

from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.loader import PositionSampler, build_loader, shard
from lisa_video.data.order import record_index
from lisa_video.errors import UserError

CLIPS = 5


def _keys(count, batch=2, rank=0, world=1, start=0, seed=1, num_clips=CLIPS):
    return list(islice(PositionSampler(num_clips, batch, rank, world, start, seed), count))


def test_each_epoch_has_every_record_once_in_its_own_order():
    epochs = [[record_index(epoch * 50 + place, 50, 7) for place in range(50)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] and epochs[0] != list(range(50))
    assert epochs[0] != [record_index(place, 50, 8) for place in range(50)]
    assert epochs[1] == [record_index(50 + place, 50, 7) for place in range(50)]  # also after the cache has moved on


def test_keys_count_positions_across_epochs():
    flat = [key for batch in _keys(6) for key in batch]
    assert [key.position for key in flat] == list(range(12))
    assert all(key.index == record_index(key.position, CLIPS, 1) for key in flat)


@pytest.mark.parametrize(("world", "batch"), [(1, 6), (2, 3), (3, 2), (6, 1)])
def test_global_batches_do_not_depend_on_the_ranks(world, batch):
    ranks = [_keys(4, batch, rank, world, start=3) for rank in range(world)]
    together = [list(chain.from_iterable(rank[step] for rank in ranks)) for step in range(4)]
    assert together == _keys(4, 6, start=3)


@pytest.mark.parametrize(("rank", "world"), [(0, 1), (1, 2)])
def test_sampler_resumes_exactly(rank, world):
    whole = _keys(9, 2, rank, world)
    assert _keys(6, 2, rank, world, start=3 * 2 * world) == whole[3:]


@pytest.mark.parametrize("wrong", [{"rank": 2, "world": 2}, {"batch": 0}, {"start": -1}, {"num_clips": 0}])
def test_impossible_orders_are_refused(wrong):
    with pytest.raises(ValueError, match="impossible order"):
        _keys(1, **wrong)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_shards_make_up_the_list(world):
    items = list("abcdef")
    parts = [shard(items, rank, world) for rank in range(world)]
    assert sorted(chain.from_iterable(parts)) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(ValueError, match="rank"):
        shard(items, world, world)


def _batches(manifest, count, **changes):
    dataset = PoseClipDataset(
        manifest, num_frames=3, frame_stride=2, size=(32, 32), flip_probability=0.5, seed=changes.get("seed", 1)
    )
    arguments = {"num_clips": len(dataset), "micro_batch_size": 2, "seed": 1, **changes}
    return list(islice(build_loader(dataset, **arguments), count))


def _assert_equal(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.clip_ids == other.clip_ids
        for name in ("positions", "frames", "pose_maps", "fps"):
            assert torch.equal(getattr(batch, name), getattr(other, name))
        for one, two in zip(batch.keypoints, other.keypoints, strict=True):
            assert np.array_equal(one.xy, two.xy, equal_nan=True) and np.array_equal(one.score, two.score)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_workers_and_resume_change_nothing(good_manifest, num_workers):
    whole = _batches(good_manifest, 6)
    assert torch.cat([batch.positions for batch in whole]).tolist() == list(range(12))
    _assert_equal(_batches(good_manifest, 4, start_position=4, num_workers=num_workers), whole[2:])


def test_ranks_share_the_batches_of_one(good_manifest):
    whole = _batches(good_manifest, 3, micro_batch_size=4)
    ranks = [_batches(good_manifest, 3, micro_batch_size=2, rank=rank, world_size=2) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert batch.clip_ids == ranks[0][step].clip_ids + ranks[1][step].clip_ids
        assert torch.equal(batch.frames, torch.cat([rank[step].frames for rank in ranks]))


def test_loader_can_be_iterated_again_from_its_start(good_manifest):
    dataset = PoseClipDataset(good_manifest, num_frames=2, frame_stride=1, size=(32, 32))
    loader = build_loader(dataset, num_clips=CLIPS, micro_batch_size=1, start_position=3)
    assert [next(iter(loader)).positions.tolist() for _ in range(2)] == [[3], [3]]


def test_skipped_clips_reach_the_batch(mini_clips):
    records = [mini_clips.record("good"), mini_clips.record("bad")]
    (mini_clips.folder / "bad.mp4").write_bytes(b"")
    batch = _batches(mini_clips.manifest(records), 1)[0]
    assert batch.clip_ids == ("good", "good") and [skipped.clip_id for skipped in batch.skipped] == ["bad"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_users_error_leaves_a_worker_as_a_users_error(mini_clips, num_workers):
    manifest = mini_clips.manifest([mini_clips.record("bad")])
    (mini_clips.folder / "bad.mp4").unlink()
    with pytest.raises(UserError, match="no such video") as error:
        _batches(manifest, 1, num_workers=num_workers)
    assert error.value.remedy and "manifest.jsonl" in str(error.value.where)
