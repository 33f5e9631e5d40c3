"""Flicker and warping error of clips whose motion is known."""

import cv2
import numpy as np
import pytest

from eval.frame_metrics.motion import Flicker, WarpingError


@pytest.fixture(scope="module")
def pan() -> np.ndarray:
    """Six frames of 64 x 72 px of a smooth random texture that moves by whole pixels: 2 to the right, 1 down."""
    noise = np.random.default_rng(0).uniform(0, 1, (100, 110, 3)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 2.0)
    texture = ((texture - texture.min()) / np.ptp(texture) * 255).astype(np.uint8)
    return np.stack([texture[20 - t : 84 - t, 20 - 2 * t : 92 - 2 * t] for t in range(6)])


def jittered(clip: np.ndarray, levels: float) -> np.ndarray:
    """Brightness changes from frame to frame by a normal number of so many grey levels."""
    change = np.random.default_rng(1).normal(0, levels, (len(clip), 1, 1, 1))
    return np.clip(clip + change, 0, 255).round().astype(np.uint8)


def test_flicker_counts_grey_levels():
    """A clip that alternates between 100 and 110, beside one that alternates between 100 and 104."""
    real = np.full((5, 8, 8, 3), 100, np.uint8)
    generated = real.copy()
    real[1::2] += 4
    generated[1::2] += 10
    assert Flicker().measure(real, generated) == {"flicker": 10.0, "flicker_real": 4.0, "flicker_ratio": 2.5}
    still = np.full_like(real, 7)
    assert np.isnan(Flicker().measure(still, generated)["flicker_ratio"])
    assert np.isnan(Flicker().measure(real[:1], generated[:1])["flicker"])


def test_a_pure_translation_has_no_warping_error(pan):
    """The flow is right to a few hundredths of a pixel; the part that leaves the frame is masked."""
    values = WarpingError().measure(pan, pan)
    assert values["warping_error"] == values["warping_error_real"] < 0.02
    left_out = 1 - (64 - 1) * (72 - 2) / (64 * 72)
    assert 0.8 < values["warped_share"] <= 1 - left_out + 0.01
    unmoved = 1e3 * np.mean((np.diff(pan.astype(float), axis=0) / 255) ** 2)
    assert values["warping_error"] < unmoved / 200


def test_warping_error_of_a_known_flicker(pan):
    """Frames alternate by +-8 levels: the difference is 16 / 255 whatever the motion."""
    dull = (pan // 2 + 64).astype(np.uint8)
    generated = dull + np.array([8, -8] * 3)[:, None, None, None]
    values = WarpingError().measure(dull, generated.astype(np.uint8))
    assert values["warping_error"] == pytest.approx(1e3 * (16 / 255) ** 2, rel=0.02)


def test_warping_error_rises_with_jitter(pan):
    """Four strengths."""
    errors = [WarpingError().measure(pan, jittered(pan, levels))["warping_error"] for levels in (0, 4, 16, 48)]
    assert errors == sorted(errors) and errors[1] > 2 * errors[0]


def test_what_is_uncovered_is_left_out():
    """A textured square moves 6 px over a resting texture: 180 px of it are uncovered and match nothing."""
    generator = np.random.default_rng(2)
    ground, square = (cv2.GaussianBlur(generator.uniform(0, 255, (96, 96, 3)), (0, 0), 1.5) for _ in range(2))
    frames = np.stack([ground] * 2)
    for frame, left in enumerate((20, 26)):
        frames[frame, 30:60, left : left + 30] = square[30:60, 30:60]
    frames = ((frames - frames.min()) / np.ptp(frames) * 255).astype(np.uint8)
    values = WarpingError().measure(frames, frames)
    uncovered = frames[:, 30:60, 20:26].astype(float) / 255
    counted_whole = 1e3 * np.sum((uncovered[0] - uncovered[1]) ** 2) / (3 * 96 * 96)
    assert values["warping_error"] < counted_whole / 4
    assert 0.8 < values["warped_share"] < 1 - 180 / 96**2


def test_a_single_frame_has_no_motion(pan):
    """Nothing is defined, and nothing fails."""
    assert np.isnan(list(WarpingError().measure(pan[:1], pan[:1]).values())).all()
