"""PSNR, SSIM and MS-SSIM against closed forms and a plain numpy SSIM."""

import numpy as np
import pytest

from eval.frame_metrics.fidelity import MAX_PSNR_DB, PSNR, SSIM, MultiScaleSSIM


def clip(seed: int, frames: int = 3, side: int = 40) -> np.ndarray:
    """Random frames, away from black and white."""
    return np.random.default_rng(seed).integers(50, 200, (frames, side, side + 8, 3), dtype=np.uint8)


def plain_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004, formula 13, channel by channel, from the definitions: no convolution library."""
    offsets = np.arange(11) - 5
    bell = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(bell, bell) / np.outer(bell, bell).sum()
    values = []
    for channel in range(3):
        x, y = a[..., channel] / 255.0, b[..., channel] / 255.0
        for row in range(x.shape[0] - 10):
            for column in range(x.shape[1] - 10):
                p, q = (picture[row : row + 11, column : column + 11] for picture in (x, y))
                mean_p, mean_q = (window * p).sum(), (window * q).sum()
                var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
                cov = (window * (p - mean_p) * (q - mean_q)).sum()
                values.append(
                    (2 * mean_p * mean_q + 0.01**2) * (2 * cov + 0.03**2)
                    / ((mean_p**2 + mean_q**2 + 0.01**2) * (var_p + var_q + 0.03**2))
                )  # fmt: skip
    return float(np.mean(values))


def test_psnr_of_a_constant_shift():
    """20 log10(255 / 10); frames are averaged in decibels, and equal ones count the cap."""
    real = clip(0)
    shifted = real + np.uint8(10)
    assert PSNR().measure(real, shifted)["psnr_db"] == pytest.approx(20 * np.log10(25.5))
    assert PSNR().measure(shifted, real)["psnr_db"] == pytest.approx(20 * np.log10(25.5))
    assert PSNR().measure(real, real)["psnr_db"] == MAX_PSNR_DB
    shifted[0] = real[0]
    assert PSNR().measure(real, shifted)["psnr_db"] == pytest.approx((MAX_PSNR_DB + 40 * np.log10(25.5)) / 3)


def test_ssim_is_that_of_the_definition():
    """Random frames and noisy copies, against a loop over windows; 17 frames go through in two chunks."""
    generator = np.random.default_rng(1)
    real = clip(1, frames=1, side=20)
    noisy = np.clip(real + generator.normal(0, 20, real.shape), 0, 255).astype(np.uint8)
    assert SSIM().measure(real, noisy)["ssim"] == pytest.approx(plain_ssim(real[0], noisy[0]), abs=2e-4)
    many_real, many = np.concatenate([real] * 17), np.concatenate([noisy] * 16 + [real])
    expected = (16 * plain_ssim(real[0], noisy[0]) + 1) / 17
    assert SSIM().measure(many_real, many)["ssim"] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(("metric", "side"), [(SSIM(), 40), (MultiScaleSSIM(), 176)], ids=["ssim", "ms_ssim"])
def test_equal_frames_are_alike_and_noise_is_not(metric, side):
    """1 for equal frames; falls with noise."""
    real = clip(2, frames=2, side=side)
    generator = np.random.default_rng(3)
    values = [
        metric.measure(real, np.clip(real + generator.normal(0, sigma, real.shape), 0, 255).astype(np.uint8))
        for sigma in (0, 20, 60)
    ]
    same, slight, strong = (value[metric.columns[0].key] for value in values)
    assert same == pytest.approx(1.0, abs=1e-5) and same > slight > strong
    assert real.shape[1] >= metric.min_side
