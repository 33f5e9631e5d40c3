"""The objective: denoising loss and Likelihood Score Alignment (LISA, arXiv 2606.27192), on one page.

    grad log p(x_s | c)  =  grad log p(x_s)      +  grad log p(c | x_s)
    conditional score       prior score: M alone     likelihood score: what the branch S must contribute

The denoising loss supervises the sum. LISA also supervises the second term inside the branch: a small decoder D of
one branch feature h predicts what the frozen network is missing. With y the target and m0 = M without residuals,

    L_main = mean (M(x_s; S) - y)^2      L_lisa = mean (D(h) - (y - m0))^2      L = L_main + lambda L_lisa
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lisa_video.conditioning import EncodedBatch
from lisa_video.config.schema import LISAConfig
from lisa_video.diffusion.process import NoiseProcess
from lisa_video.diffusion.sigma import SigmaDistribution
from lisa_video.models.controlled import Prediction
from lisa_video.randomness import normal, uniform


class LossTerms(NamedTuple):
    """The loss and its parts.

    Attributes:
        total: scalar to differentiate.
        denoising: (B,) L_main of each clip.
        lisa: (B, F) L_lisa of each clip and frame; zeros in the baseline.
        residual: (B, F) mean (y - m0)^2, the size of what D must explain; zeros in the baseline. lisa / residual
            below 1 means that D explains part of it.
        sigma: (B,) noise levels.
    """

    total: Tensor
    denoising: Tensor
    lisa: Tensor
    residual: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class LISAWeight:
    """lambda of each clip: constant as published, or falling over the run, or larger where there is more noise.

        lambda(s, p) = weight max(0, 1 - p / decay_samples) s^2 / (1 + s^2)

    for the clip at position p of the run. Where little noise was added, what the frozen network lacks is mostly the
    noise itself, which no pose explains; the last factor keeps it out.

    Attributes:
        weight: lambda at the start; has no effect on a model without a decoder.
        decay_samples: clips over which it falls to 0; 0: never.
        favours_noise: use the last factor.
    """

    weight: float
    decay_samples: int = 0
    favours_noise: bool = False

    def __call__(self, sigma: Float[Tensor, " B"], positions: Int64[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Weights of B clips."""
        weight = torch.full_like(sigma, self.weight)
        if self.decay_samples:
            weight = weight * (1 - positions.to(sigma) / self.decay_samples).clamp(min=0)
        if self.favours_noise:
            weight = weight * sigma.square() / (1 + sigma.square())
        return weight


def build_lisa_weight(config: LISAConfig | None) -> LISAWeight:
    """The weight that a run's settings ask for; 0 for the baseline."""
    if config is None:
        return LISAWeight(0.0)
    return LISAWeight(config.weight, config.decay_samples, config.noise_weight == "noisy")


def loss_terms(
    prediction: Prediction,
    target: Float[Tensor, "B F C h w"],
    sigma: Float[Tensor, " B"],
    weight: float | Float[Tensor, " B"],
) -> LossTerms:
    """Both losses from one pass's predictions. The LISA target `y - m0` carries no gradient."""
    denoising = (prediction.controlled - target).square().mean(dim=(1, 2, 3, 4))
    if prediction.lisa is None or prediction.frozen is None:
        nothing = torch.zeros(target.shape[:2], device=target.device)
        return LossTerms(denoising.mean(), denoising.detach(), nothing, nothing, sigma)
    likelihood_score = (target - prediction.frozen).detach()
    lisa = (prediction.lisa - likelihood_score).square().mean(dim=(2, 3, 4))
    residual = likelihood_score.square().mean(dim=(2, 3, 4))
    total = denoising.mean() + (weight * lisa.mean(dim=1)).mean()
    return LossTerms(total, denoising.detach(), lisa.detach(), residual, sigma)


@dataclass(frozen=True)
class Objective:
    """Draws noise levels and noise, runs the model once, and returns the losses.

    Attributes:
        process: the backbone's noise process.
        sigmas: distribution of the noise level.
        lisa_weight: lambda of each clip.
        seed: of the run; draws are functions of (seed, sample position).
        lisa_every: k: only every k-th micro-batch has the LISA loss, with k times its weight, so that the expected
            gradient stays. The other micro-batches cost what a plain ControlNet's cost.
    """

    process: NoiseProcess
    sigmas: SigmaDistribution
    lisa_weight: LISAWeight
    seed: int
    lisa_every: int = 1

    def draw(self, batch: EncodedBatch) -> tuple[Float[Tensor, " B"], Float[Tensor, "B F C h w"]]:
        """Noise level of each clip, one for all its frames, and standard normal noise."""
        x0 = batch.latents
        sigma = self.sigmas.icdf(uniform(self.seed, batch.positions, "sigma", x0.device))
        return sigma, normal(x0.shape[1:], self.seed, batch.positions, "noise", x0.device)

    def __call__(self, model: nn.Module, batch: EncodedBatch, micro_batch: int = 0) -> LossTerms:
        """One pass over a batch.

        Args:
            model: `ControlledDenoiser`, possibly inside an engine.
            batch: encoded clips.
            micro_batch: its number since the start of the run, the same on all ranks: all take the same time.
        """
        sigma, noise = self.draw(batch)
        x_s = self.process.add_noise(batch.latents, noise, sigma)
        target = self.process.target(batch.latents, noise, sigma)
        plain = {"align": False} if micro_batch % self.lisa_every else {}
        prediction = model(x_s, sigma, batch.condition, batch.pose_maps, **plain)
        positions = torch.tensor(batch.positions, device=sigma.device)
        weight = self.lisa_weight(sigma, positions) * self.lisa_every
        return loss_terms(prediction, target, sigma, weight)
