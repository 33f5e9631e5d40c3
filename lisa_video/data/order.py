"""Which clip stands at which position of a run: a pure function, so any rank can start anywhere.

The clips of a bucket make an endless row: epoch after epoch, each in an order of its own. Positions are taken in groups
of G, the clips that all ranks take at once, and a group belongs to one bucket. With n_b clips in bucket b, the first e
epochs of the run hold floor(e n_b / G) groups of it; within an epoch the groups of all buckets are shuffled. Hence
every bucket is used in proportion to its clips, each of its clips exactly once a pass over it, and none is left out
for good. With a single bucket the row is the order itself, whatever G.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Sequence

import numpy as np

from lisa_video.data.batch import SampleKey
from lisa_video.errors import UserError


@functools.lru_cache(maxsize=64)
def epoch_order(epoch: int, num_clips: int, seed: int) -> np.ndarray:
    """The order of the records in an epoch: (num_clips,) int64, a permutation."""
    order = np.random.default_rng([seed, epoch]).permutation(num_clips)
    order.flags.writeable = False  # it is cached
    return order


def record_index(position: int, num_clips: int, seed: int) -> int:
    """Number of the record at a position of an endless row of epochs; each epoch has every record once."""
    epoch, place = divmod(position, num_clips)
    return int(epoch_order(epoch, num_clips, seed)[place])


class ClipOrder:
    """The clip at each position.

    Args:
        members: for each bucket the numbers of its records, (n_b,) int64, at least one each.
        group: G, consecutive positions that share a bucket: micro-batch size times ranks.
        seed: of all orders.
    """

    def __init__(self, members: Sequence[np.ndarray], group: int, seed: int) -> None:
        if not members or group < 1 or any(len(bucket) == 0 for bucket in members):
            raise ValueError(f"an order needs clips in every bucket, and groups of at least one, not of {group}")
        self.members, self.group, self.seed = members, group, seed
        self._sizes = tuple(len(bucket) for bucket in members)

    def key(self, position: int) -> SampleKey:
        """The sample at a position."""
        number, place = divmod(position, self.group)
        bucket, visit = self._visit(number)
        turn = visit * self.group + place
        index = int(self.members[bucket][record_index(turn, self._sizes[bucket], self.seed)])
        return SampleKey(position, index, bucket, turn)

    def check_start(self, position: int) -> None:
        """Check that a run can go on at a position.

        Raises:
            UserError: there are several buckets, and a micro-batch of all ranks would hold clips of two.
        """
        if len(self.members) > 1 and position % self.group:
            raise UserError(
                f"{position} clips were seen, which is no multiple of the {self.group} that all ranks take at once",
                where="training.micro_batch_size",
                remedy="resume with a micro-batch size and a number of ranks whose product divides the clips seen",
            )

    def _visit(self, number: int) -> tuple[int, int]:
        """Bucket of a group, and how many groups of that bucket came before it."""
        if len(self._sizes) == 1:
            return 0, number
        latest = (number + len(self._sizes)) * self.group // sum(self._sizes) + 1
        epoch = bisect.bisect_right(range(latest + 1), number, key=self._groups_before) - 1
        buckets, visits = _epoch_groups(epoch, self._sizes, self.group, self.seed)
        place = number - self._groups_before(epoch)
        return int(buckets[place]), int(visits[place])

    def _groups_before(self, epoch: int) -> int:
        return sum(epoch * size // self.group for size in self._sizes)


@functools.lru_cache(maxsize=4)
def _epoch_groups(epoch: int, sizes: tuple[int, ...], group: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each group of an epoch, its bucket and the number of groups of that bucket before it in the run."""
    firsts = [epoch * size // group for size in sizes]
    counts = [(epoch + 1) * size // group - first for size, first in zip(sizes, firsts, strict=True)]
    buckets = np.random.default_rng([seed, epoch, 1]).permutation(np.repeat(np.arange(len(sizes)), counts))
    visits = np.empty(len(buckets), np.int64)
    for bucket, (first, count) in enumerate(zip(firsts, counts, strict=True)):
        visits[buckets == bucket] = first + np.arange(count)
    return buckets, visits
