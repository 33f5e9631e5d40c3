"""Identities from boxes alone: kept through crossings and gaps, never shared."""

from __future__ import annotations

import numpy as np
import pytest

from lisa_video.pose.tracking import LOST_S, track

FPS = 12.0


def box(x: float, y: float = 50.0, width: float = 30.0, height: float = 80.0, score: float = 0.9) -> list[float]:
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2, score]


def rows(*boxes: list[float]) -> np.ndarray:
    return np.array(boxes, np.float32).reshape(-1, 5)


def test_people_who_walk_past_each_other_keep_their_identity():
    """The nearer one is larger; in the middle one box covers most of the other."""
    frames = [rows(box(20 + 8 * i), box(220 - 8 * i, 46, 24, 64)) for i in range(26)]
    assert [ids.tolist() for ids in track(frames, FPS)] == [[0, 1]] * 26


def test_the_order_of_the_boxes_does_not_matter():
    rng = np.random.default_rng(0)
    orders = [rng.permutation(3) for _ in range(20)]
    frames = [rows(*[box(40 + 90 * p + 4 * i) for p in order]) for i, order in enumerate(orders)]
    found = track(frames, FPS)
    names = dict(zip(orders[0].tolist(), found[0].tolist(), strict=True))
    assert sorted(names.values()) == [0, 1, 2]
    for order, ids in zip(orders, found, strict=True):
        assert ids.tolist() == [names[p] for p in order.tolist()]


@pytest.mark.parametrize("gap, same", [(round(0.5 * LOST_S * FPS), True), (round(2 * LOST_S * FPS), False)])
def test_somebody_unseen_for_a_while_is_known_again_and_after_long_is_not(gap, same):
    steps = [*range(6), *range(6 + gap, 14 + gap)]
    seen = {step: rows(box(60 + 2 * step), box(250)) for step in steps}
    found = track([seen.get(step, rows(box(250))) for step in range(14 + gap)], FPS)
    first, again = int(found[5][0]), int(found[-1][0])
    assert (first == again) is same
    assert len({int(ids[-1]) for ids in found}) == 1  # the one who stayed


def test_frames_without_people():
    assert [ids.shape for ids in track([rows()] * 3, FPS)] == [(0,)] * 3
    found = track([rows(), rows(box(50)), rows(), rows(box(51))], FPS)
    assert [ids.tolist() for ids in found] == [[], [0], [], [0]]


def test_a_single_sight_counts():
    """ByteTrack itself would name nobody in the first frame of a track."""
    found = track([rows(box(50)), rows(box(52), box(200)), rows(box(54))], FPS)
    assert [ids.tolist() for ids in found] == [[0], [0, 1], [0]]


def test_nobody_shares_an_identity_in_a_crowd():
    rng = np.random.default_rng(1)
    places = rng.uniform(0, 900, (30, 2))
    frames = [rows(*[box(x, y) for x, y in places + rng.normal(0, 2, (30, 2))]) for _ in range(10)]
    for ids in track(frames, FPS):
        assert len(set(ids.tolist())) == 30


@pytest.mark.parametrize("fps", [1.0, 240.0])
def test_slow_and_fast_cameras(fps):
    frames = [rows(box(50 + i), box(150 - i)) for i in range(8)]
    assert [ids.tolist() for ids in track(frames, fps)] == [[0, 1]] * 8
