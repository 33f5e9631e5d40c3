"""The order of clips in buckets: every micro-batch of one bucket, nobody left out, a pure function of the position."""

from collections import Counter
from itertools import chain, islice, pairwise

import numpy as np
import pytest

from lisa_video.data.loader import PositionSampler
from lisa_video.data.order import ClipOrder, record_index
from lisa_video.errors import UserError

MEMBERS = [np.array([0, 4, 5, 9, 11, 12, 13]), np.array([1, 2, 3]), np.array([6, 7, 8, 10])]
CLIPS = 14


def keys(count, group=3, members=MEMBERS, start=0, seed=5):
    order = ClipOrder(members, group, seed)
    return [order.key(position) for position in range(start, start + count)]


@pytest.mark.parametrize("group", [1, 2, 3, 8])
def test_a_group_holds_one_bucket(group):
    for first in range(0, 40 * group, group):
        batch = keys(group, group, start=first)
        (bucket,) = {key.bucket for key in batch}
        assert all(key.index in MEMBERS[bucket] for key in batch)


@pytest.mark.parametrize("group", [1, 3, 5])
def test_every_clip_comes_once_a_pass_over_its_bucket(group):
    rows = {bucket: [key for key in keys(60 * group, group) if key.bucket == bucket] for bucket in range(3)}
    for bucket, row in rows.items():
        assert [key.turn for key in row] == list(range(len(row)))  # nothing is left out, nothing comes twice
        size = len(MEMBERS[bucket])
        for first in range(0, len(row) - size + 1, size):
            assert sorted(key.index for key in row[first : first + size]) == sorted(MEMBERS[bucket])


@pytest.mark.parametrize("group", [1, 4, 20])
def test_buckets_are_used_in_proportion_to_their_clips(group):
    epochs = 30
    seen = Counter(key.bucket for key in keys(epochs * CLIPS // group * group, group))
    assert all(abs(seen[bucket] - epochs * len(MEMBERS[bucket])) <= 2 * group for bucket in range(3))


def test_buckets_are_mixed_within_an_epoch():
    """Of 600 groups in two equal buckets, the number of changes from one to the other is that of a fair coin."""
    members = [np.arange(300), np.arange(300, 600)]
    buckets = [key.bucket for key in keys(600, 1, members)]
    changes = sum(one != other for one, other in pairwise(buckets))
    assert abs(changes - 299.5) < 4 * np.sqrt(599) / 2
    assert buckets != [key.bucket for key in keys(600, 1, members, start=600)]  # another epoch, another order
    assert buckets != [key.bucket for key in keys(600, 1, members, seed=6)]


def test_one_bucket_is_the_plain_order_whatever_the_group():
    members = [np.arange(9) + 20]
    plain = [20 + record_index(position, 9, 5) for position in range(50)]
    for group in (1, 4, 30):
        assert [key.index for key in keys(50, group, members)] == plain


def sampled(rank, world, batch, start=0, count=12):
    sampler = PositionSampler(CLIPS, batch, rank, world, start, 5, members=MEMBERS)
    return list(islice(sampler, count))


def test_ranks_share_the_batches_of_one_and_resume_exactly():
    whole = sampled(0, 1, 6)
    ranks = [sampled(rank, 3, 2) for rank in range(3)]
    assert [list(chain.from_iterable(rank[step] for rank in ranks)) for step in range(12)] == whole
    assert sampled(1, 3, 2, start=5 * 6, count=7) == ranks[1][5:]


def test_a_start_within_a_group_is_refused():
    with pytest.raises(UserError, match=r"8 clips were seen, .* 6 that all ranks take at once"):
        sampled(0, 3, 2, start=8)


def test_empty_buckets_are_refused():
    with pytest.raises(ValueError, match="clips in every bucket"):
        ClipOrder([np.arange(3), np.arange(0)], 2, 0)
