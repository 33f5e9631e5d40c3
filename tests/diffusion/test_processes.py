"""Both noise processes: target and denoised are inverse to each other; EDM is diffusers' SVD scheduler."""

from __future__ import annotations

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from lisa_video.diffusion.edm import EDMProcess
from lisa_video.diffusion.flow import FlowProcess

SVD_SCHEDULER = {
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
}
EDM_LEVELS = torch.tensor([0.002, 0.3, 1.0, 7.0, 700.0], dtype=torch.float64)
FLOW_LEVELS = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
BOTH = pytest.mark.parametrize(
    ("process", "levels"), [(EDMProcess(), EDM_LEVELS), (FlowProcess(), FLOW_LEVELS)], ids=["edm", "flow"]
)


def clips(seed: int, batch: int = 5) -> torch.Tensor:
    return torch.randn(batch, 2, 3, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@BOTH
def test_denoised_of_the_target_is_the_clean_latent(process, levels):
    x0, n = clips(0), clips(1)
    denoised = process.denoised(process.target(x0, n, levels), process.add_noise(x0, n, levels), levels)
    torch.testing.assert_close(denoised, x0, rtol=0, atol=1e-9)


@BOTH
def test_each_clip_has_its_own_level(process, levels):
    x0, n = clips(0), clips(1)
    together = process.add_noise(x0, n, levels), process.target(x0, n, levels), process.model_input(x0, levels)
    for i in range(len(levels)):
        one = slice(i, i + 1)
        alone = (
            process.add_noise(x0[one], n[one], levels[one]),
            process.target(x0[one], n[one], levels[one]),
            process.model_input(x0[one], levels[one]),
        )
        for a, b in zip(alone, together, strict=True):
            assert torch.equal(a, b[one])


@BOTH
def test_estimate_error_is_proportional_to_the_output_error(process, levels):
    x0, n = clips(0), clips(1)
    x_s, wrong = process.add_noise(x0, n, levels), clips(2)
    error = process.denoised(process.target(x0, n, levels) + wrong, x_s, levels) - x0
    ratio = error / wrong
    torch.testing.assert_close(ratio, ratio.mean(dim=(1, 2, 3, 4), keepdim=True).expand_as(ratio), rtol=0, atol=1e-6)


def test_edm_scalings_are_the_published_ones():
    s = EDM_LEVELS
    one, zero = torch.ones(5, 1, 1, 1, 1, dtype=torch.float64), torch.zeros(5, 1, 1, 1, 1, dtype=torch.float64)
    process = EDMProcess()
    c_skip, c_out = process.denoised(zero, one, s).flatten(), process.denoised(one, zero, s).flatten()
    torch.testing.assert_close(c_skip, 1 / (s**2 + 1))
    torch.testing.assert_close(c_out, -s / (s**2 + 1).sqrt())
    torch.testing.assert_close(process.model_input(one, s).flatten(), 1 / (s**2 + 1).sqrt())
    torch.testing.assert_close(process.timestep(s), 0.25 * s.log())
    torch.testing.assert_close(process.add_noise(zero, one, s).flatten(), s)


def test_edm_agrees_with_the_svd_scheduler_at_every_step():
    scheduler = EulerDiscreteScheduler(**SVD_SCHEDULER)
    scheduler.set_timesteps(12)
    process, sigmas = EDMProcess(), scheduler.sigmas[:-1]
    torch.testing.assert_close(process.timestep(sigmas), scheduler.timesteps)
    for number, t in enumerate(scheduler.timesteps):
        x, f = clips(number, 1).float() * sigmas[number], clips(100 + number, 1).float()
        s = sigmas[number : number + 1]
        torch.testing.assert_close(process.model_input(x, s), scheduler.scale_model_input(x, t))
        torch.testing.assert_close(
            process.denoised(f, x, s), scheduler.step(f, t, x).pred_original_sample, rtol=1e-5, atol=1e-5
        )


def test_plain_error_in_f_space_is_the_weighted_svd_loss():
    x0, n, f, s = clips(0), clips(1), clips(2), EDM_LEVELS
    process = EDMProcess()
    usual_weight = ((1 + s**2) / s**2).view(-1, 1, 1, 1, 1)
    usual = usual_weight * (process.denoised(f, process.add_noise(x0, n, s), s) - x0) ** 2
    torch.testing.assert_close((f - process.target(x0, n, s)) ** 2, usual, rtol=1e-6, atol=1e-9)


def test_edm_target_has_unit_variance_at_every_level():
    generator = torch.Generator().manual_seed(0)
    x0, n = (torch.randn(5, 4, 4, 32, 32, generator=generator) for _ in range(2))
    variance = EDMProcess().target(x0, n, EDM_LEVELS.float()).var(dim=(1, 2, 3, 4))
    torch.testing.assert_close(variance, torch.ones(5), rtol=0.05, atol=0)


def test_flow_goes_from_data_to_noise_along_straight_lines():
    x0, n, process = clips(0), clips(1), FlowProcess(time_scale=1000.0)
    x_t = process.add_noise(x0, n, FLOW_LEVELS)
    assert torch.equal(x_t[0], x0[0]) and torch.equal(x_t[-1], n[-1])
    torch.testing.assert_close(x_t[2], (x0[2] + n[2]) / 2)
    assert torch.equal(process.target(x0, n, FLOW_LEVELS), n - x0)
    assert torch.equal(process.model_input(x_t, FLOW_LEVELS), x_t)
    torch.testing.assert_close(process.timestep(FLOW_LEVELS), FLOW_LEVELS * 1000)
