"""The sampler: solves Gaussians whose answer is known, and equals diffusers' Euler scheduler step by step."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from lisa_video.diffusion.edm import EDMProcess
from lisa_video.diffusion.sampler import guidance_ramp, guide, karras_sigmas, sample_euler

SVD_SCHEDULER = {
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
}
MEAN, DEVIATION = 0.4, 0.8


def noise(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def gaussian_denoiser(x, s):
    """Posterior mean of data ~ N(MEAN, DEVIATION^2) under EDM noise."""
    s2 = s.double().view(-1, 1, 1, 1, 1) ** 2
    return (DEVIATION**2 * x + s2 * MEAN) / (DEVIATION**2 + s2)


def gaussian_error(num_steps: int) -> float:
    sigmas = karras_sigmas(num_steps, 0.002, 80.0)
    sample = sample_euler(gaussian_denoiser, noise(), sigmas)
    first = sigmas[0].item()
    exact = MEAN + (first * noise() - MEAN) * DEVIATION / math.sqrt(DEVIATION**2 + first**2)
    return (sample - exact).abs().max().item()


@pytest.mark.parametrize("num_steps", [2, 7, 25])
def test_karras_levels_are_those_of_the_svd_scheduler(num_steps):
    scheduler = EulerDiscreteScheduler(**SVD_SCHEDULER)
    scheduler.set_timesteps(num_steps)
    torch.testing.assert_close(karras_sigmas(num_steps).float(), scheduler.sigmas)


def test_one_step_is_one_level_and_zero():
    assert karras_sigmas(1, 0.002, 80.0).tolist() == pytest.approx([80.0, 0.0])


def test_gaussian_is_solved_to_first_order():
    coarse, fine, finest = gaussian_error(50), gaussian_error(100), gaussian_error(400)
    assert finest < 0.02
    assert coarse / fine == pytest.approx(2, rel=0.2)
    assert fine / finest == pytest.approx(4, rel=0.2)


def test_rectified_flow_is_solved_by_the_same_sampler():
    # x_t ~ N(0, (1-t)^2 d^2 + t^2) and the exact map from t = 1 to t = 0 multiplies by d.
    def denoise(x, t):
        t = t.double().view(-1, 1, 1, 1, 1)
        return (1 - t) * DEVIATION**2 * x / ((1 - t) ** 2 * DEVIATION**2 + t**2)

    times = torch.linspace(1, 0, 401, dtype=torch.float64)
    torch.testing.assert_close(sample_euler(denoise, noise(), times), DEVIATION * noise(), rtol=0.01, atol=0.005)


def test_every_step_equals_the_svd_scheduler():
    process, start = EDMProcess(), noise().float()

    def network(model_input, timestep):
        return torch.tanh(3 * model_input.roll(1, dims=1) + timestep.view(-1, 1, 1, 1, 1))

    ours = []

    def denoise(x, s):
        ours.append(x)
        return process.denoised(network(process.model_input(x, s), process.timestep(s)), x, s)

    result = sample_euler(denoise, start, karras_sigmas(9))

    scheduler = EulerDiscreteScheduler(**SVD_SCHEDULER)
    scheduler.set_timesteps(9)
    x = start * scheduler.sigmas[0]
    for number, t in enumerate(scheduler.timesteps):
        torch.testing.assert_close(ours[number], x, rtol=1e-4, atol=1e-4)
        x = scheduler.step(network(scheduler.scale_model_input(x, t), t.expand(len(x))), t, x).prev_sample
    torch.testing.assert_close(result, x, rtol=1e-4, atol=1e-4)


def test_last_step_returns_the_estimate_itself():
    answer = torch.full_like(noise(), 0.25)
    torch.testing.assert_close(sample_euler(lambda x, s: answer, noise(), karras_sigmas(3)), answer)


def test_denoiser_is_told_the_level_of_each_clip_and_steps_are_counted():
    told, finished = [], []

    def denoise(x, s):
        told.append(s)
        return x * 0

    sample_euler(denoise, noise(2), karras_sigmas(3), finished.append)
    assert finished == [1, 2, 3]
    torch.testing.assert_close(torch.stack(told), karras_sigmas(3)[:-1, None].float().expand(3, 2))


def test_guidance_ramp_is_that_of_the_svd_pipeline():
    # diffusers: torch.linspace(min_guidance_scale, max_guidance_scale, num_frames), one number a frame
    assert guidance_ramp(1.0, 3.0, 5).flatten().tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert guidance_ramp(1.0, 3.0, 5).shape == (1, 5, 1, 1, 1)


def test_guidance_extrapolates_each_frame_by_its_scale():
    conditional, unconditional = noise(), noise().flip(0)
    guided = guide(conditional, unconditional, guidance_ramp(0.0, 2.0, 3))
    torch.testing.assert_close(guided[:, 0], unconditional[:, 0])
    torch.testing.assert_close(guided[:, 1], conditional[:, 1])
    torch.testing.assert_close(guided[:, 2], 2 * conditional[:, 2] - unconditional[:, 2])
