"""One-euro filter: still people stand still, moving ones are followed, and nothing else changes."""

from __future__ import annotations

import numpy as np

from lisa_video.config.detector import SmoothingSettings
from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.smoothing import smooth

FPS = 24.0
SETTINGS = SmoothingSettings()
BODY = np.stack([np.linspace(-20, 20, 17), np.linspace(-50, 50, 17)], axis=-1)  # diagonal 108 px


def poses(xy: np.ndarray) -> Keypoints:
    """(F, P, 17, 2) -> with scores that say where they came from."""
    score = np.random.default_rng(9).uniform(0.3, 1, xy.shape[:3]).astype(np.float32)
    return Keypoints(xy.astype(np.float32), score, np.arange(xy.shape[1]))


def still(frames: int, noise: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (100 + BODY)[None, None] + rng.normal(0, noise, (frames, 1, 17, 2))


def test_jitter_of_a_still_person_shrinks_and_the_place_stays():
    xy = still(200, 1.0)
    found = smooth(poses(xy), FPS, SETTINGS).xy[20:]
    assert found.std(axis=0).mean() < 0.5
    assert np.abs(found.mean(axis=0) - xy[20:].mean(axis=0)).max() < 0.2


def test_a_step_is_followed_the_sooner_the_larger_beta():
    xy = still(48, 0.0)
    xy[12:, ..., 0] += 100.0
    lag = []
    for beta in (0.0, 0.3, 3.0):
        found = smooth(poses(xy), FPS, SmoothingSettings(beta=beta)).xy[:, 0, 0, 0] - xy[0, 0, 0, 0]
        assert np.abs(found[:12]).max() < 1e-3 and np.all(np.diff(found) > -1e-3) and found.max() < 100.01
        lag.append(int(np.argmax(found > 90)))
    assert lag[0] > lag[1] > lag[2] and lag[2] - 12 <= 3
    assert lag[0] - 12 == 9  # (1 - w)^10 < 0.1, w = 1 / (1 + 24 / 2 pi)


def test_scores_and_identities_stay_and_the_input_is_not_touched():
    given = poses(still(10, 1.0))
    before = given.xy.copy()
    found = smooth(given, FPS, SETTINGS)
    assert np.array_equal(found.score, given.score) and np.array_equal(found.track_id, given.track_id)
    assert np.array_equal(given.xy, before) and found.xy.dtype == np.float32 and found.skeleton == given.skeleton


def test_gaps_stay_gaps_and_the_filter_starts_anew_after_them():
    xy = still(20, 1.0)
    xy[8:12, 0, 3] = np.nan
    found = smooth(poses(xy), FPS, SETTINGS).xy
    assert np.array_equal(np.isnan(found), np.isnan(xy))
    assert np.allclose(found[[0, 12], 0, 3], xy[[0, 12], 0, 3], atol=1e-4)
    without_gap = smooth(poses(still(20, 1.0)), FPS, SETTINGS).xy
    assert np.allclose(np.delete(found, 3, axis=2), np.delete(without_gap, 3, axis=2))
    assert not np.allclose(without_gap[12, 0, 3], xy[12, 0, 3], atol=1e-2)


def test_near_and_far_people_are_smoothed_alike():
    near = still(30, 1.0)
    near[10:, ..., 1] += np.linspace(0, 80, 20)[:, None, None]
    both = smooth(poses(np.concatenate([near, near / 10], axis=1)), FPS, SETTINGS).xy
    assert np.allclose(both[:, 0], both[:, 1] * 10, atol=1e-2)


def test_nobody_and_unknown_joints():
    assert smooth(poses(np.zeros((5, 0, 17, 2))), FPS, SETTINGS).xy.shape == (5, 0, 17, 2)
    unknown = np.full((5, 1, 17, 2), np.nan)
    assert np.isnan(smooth(poses(unknown), FPS, SETTINGS).xy).all()
