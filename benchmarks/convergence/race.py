"""A race: arms trained side by side on the same clips and noise, as fast as a small network allows.

The arms are those of the trainer (`lisa_video.training`): same networks, conditions, losses, optimizer, clip of the
gradient norm and moving average (a test compares the two). What differs is how the numbers are got:

- clips lie encoded in the device's memory, and random numbers are drawn there;
- the frozen network's own pass is computed once for all arms, which is what pairing them allows;
- on a GPU every step is captured as a CUDA graph, optimizer included, and arms run on streams of their own: a small
  network's kernels are much shorter than the time that it takes to launch them one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.convergence.clips import Clips
from lisa_video.conditioning import drop_image, drop_pose
from lisa_video.config.schema import RunConfig
from lisa_video.data.order import epoch_order
from lisa_video.models.backbone import BackboneParts, Condition, SideBranch
from lisa_video.models.build import build_denoiser, build_sigmas
from lisa_video.models.controlled import ControlledDenoiser, Prediction
from lisa_video.objective import build_lisa_weight, loss_terms
from lisa_video.training.optimizer import build_optimizer, parameter_groups, rate_factor

SHARED = ("data", "backbone", "training", "sampling")
"""Sections of the config in which arms of a race are equal."""

_WARM_UP = 3


class Drawn(NamedTuple):
    """A step's batch: what the network sees, and what it should say."""

    x_s: Tensor
    sigma: Tensor
    timestep: Tensor
    model_input: Tensor
    target: Tensor
    condition: Condition
    pose_maps: Tensor
    positions: Tensor


class Shared(NamedTuple):
    """What all arms of a step have in common: the batch, and the frozen network's own pass over it."""

    drawn: Drawn
    state: Any  # of the encoder half
    frozen: Tensor  # m0


class Draws:
    """Clips, noise levels, noise and dropped conditions of each step.

    Args:
        config: of any arm; what is used of it must be the same in all.
        parts: frozen network and codec, on the device.
        clips: training clips.
        seed: of order and random numbers.
    """

    def __init__(self, config: RunConfig, parts: BackboneParts, clips: Clips, seed: int) -> None:
        self.config, self.parts, self.clips = config, parts, clips
        device, self.batch = clips.latents.device, config.training.micro_batch_size
        self.sigmas = build_sigmas(config.noise)
        needed, count = config.training.max_steps * self.batch, len(clips.ids)
        epochs = [epoch_order(epoch, count, seed) for epoch in range(needed // count + 2)]
        self.order = torch.from_numpy(np.concatenate(epochs)).to(device)
        self.position = torch.zeros((), dtype=torch.int64, device=device)
        self.within = torch.arange(self.batch, device=device)
        self.generator = torch.Generator(device)
        self.seed = seed
        self.restart()

    def restart(self) -> None:
        """Back to the first step."""
        self.position.zero_()
        self.generator.manual_seed(self.seed)

    def _normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, device=like.device)

    def _uniform(self) -> Tensor:
        u = torch.rand(self.batch, generator=self.generator, device=self.order.device)
        return u.clamp(1e-6, 1 - 1e-6)

    @torch.no_grad()
    def __call__(self) -> Drawn:
        """The next step's."""
        settings, process = self.config.conditioning, self.parts.backbone.process
        positions = self.position + self.within
        chosen = self.order[positions]
        x0, picture = self.clips.latents[chosen], self.clips.pictures[chosen]
        condition = self.parts.codec.encode_reference(
            picture,
            self._normal(picture),
            self.clips.fps[chosen],
            noise_aug_strength=settings.noise_aug_strength,
            motion_bucket_id=settings.motion_bucket_id,
            embedding=self.clips.embedding[chosen],
        )
        condition = drop_image(condition, self._uniform(), settings.image_dropout)
        pose_maps = drop_pose(self.clips.pose_maps[chosen].float() / 255, self._uniform(), settings.pose_dropout)
        sigma, noise = self.sigmas.icdf(self._uniform()), self._normal(x0)
        x_s = process.add_noise(x0, noise, sigma)
        model_input, timestep = process.model_input(x_s, sigma), process.timestep(sigma)
        self.position.add_(self.batch)
        target = process.target(x0, noise, sigma)
        return Drawn(x_s, sigma, timestep, model_input, target, condition, pose_maps, positions)


class Arm:
    """One arm: branch, decoder, optimizer and moving average.

    Args:
        config: of its run; one micro-batch a step.
        parts: the frozen network, shared with other arms.
        device: where it is trained.
    """

    def __init__(self, config: RunConfig, parts: BackboneParts, device: torch.device) -> None:
        assert config.training.gradient_accumulation == 1
        self.config, settings = config, config.optimizer
        self.model: ControlledDenoiser = build_denoiser(config, parts).to(device)
        groups = parameter_groups(self.model, config)
        for group in groups:
            group["lr"] = torch.tensor(settings.lr, device=device)  # which a recorded step can change
        self.optimizer = build_optimizer(groups, settings, fused=True, capturable=device.type == "cuda")
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.lisa_weight, self.lisa_every = build_lisa_weight(config.lisa), config.lisa.every if config.lisa else 1
        self.branch = list(self.model.branch.parameters())
        self.average = [p.detach().clone() for p in self.branch]
        self.steps = torch.zeros((), device=device)
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)  # L_main, L_lisa, mean (y - m0)^2, steps

    def predict(self, shared: Shared) -> Prediction:
        """The forward pass of `ControlledDenoiser`, but for the frozen part, which is there already."""
        model, drawn = self.model, shared.drawn
        branch = model.branch(drawn.model_input, drawn.timestep, drawn.condition, drawn.pose_maps)
        controlled = model.backbone.decode(shared.state, branch.residuals)
        if model.decoder is None:
            return Prediction(controlled, None, None)
        feature = branch.features[model.feature_index]
        return Prediction(controlled, shared.frozen, model.decoder(feature, drawn.timestep, drawn.x_s.shape[-2:]))

    def step(self, shared: Shared) -> None:
        """One optimizer step."""
        self.optimizer.zero_grad(set_to_none=True)
        self._set_rate()
        drawn = shared.drawn
        # A weight of 0 costs a pass that the trainer does not make, but a recorded step has to be the same each time.
        due = self.lisa_every * (self.steps % self.lisa_every == 0)
        weight = self.lisa_weight(drawn.sigma, drawn.positions) * due
        terms = loss_terms(self.predict(shared), drawn.target, drawn.sigma, weight)
        terms.total.backward()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        torch._foreach_mul_(gradients, (self.config.optimizer.clip_norm / (norm + 1e-6)).clamp(max=1))
        self.optimizer.step()
        self._average()
        parts = (terms.denoising, terms.lisa, terms.residual)
        self.sums += torch.stack([*(part.mean().double() for part in parts), torch.ones_like(self.sums[0])])

    def _set_rate(self) -> None:
        """As `Engine.set_rate`, on the device."""
        seen, training = self.steps * self.config.training.micro_batch_size, self.config.training
        factor = rate_factor(self.config.optimizer, seen, training.max_steps * training.micro_batch_size - seen)
        for group in self.optimizer.param_groups:
            group["lr"].copy_(self.config.optimizer.lr * factor * group["rate"])

    @torch.no_grad()
    def _average(self) -> None:
        """As `lisa_video.training.ema`, with the decay on the device."""
        self.steps += 1
        decay = ((1 + self.steps) / (10 + self.steps)).clamp(max=self.config.optimizer.ema_decay)
        torch._foreach_mul_(self.average, decay)
        torch._foreach_add_(self.average, torch._foreach_mul(self.branch, 1 - decay))

    @contextmanager
    def averaged(self) -> Iterator[SideBranch]:
        """The branch with its moving average, for a while."""
        own = [p.detach().clone() for p in self.branch]
        with torch.no_grad():
            torch._foreach_copy_(self.branch, self.average)
        yield self.model.branch
        with torch.no_grad():
            torch._foreach_copy_(self.branch, own)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Whatever is done within is undone, but for memory that optimizer and graphs have taken."""
        kept = [*self.parameters, *self.average, self.steps, self.sums]
        before = [value.detach().clone() for value in kept]
        yield
        with torch.no_grad():
            torch._foreach_copy_([value.detach() for value in kept], before)
            for state in self.optimizer.state.values():
                for value in state.values():
                    value.zero_()


class Race:
    """Arms in step.

    Args:
        draws: of the steps.
        arms: by name.
    """

    def __init__(self, draws: Draws, arms: dict[str, Arm]) -> None:
        self.draws, self.arms = draws, arms
        self._step = self._captured() if draws.order.is_cuda else self._eager

    def steps(self, count: int) -> None:
        """Train all arms so many steps further."""
        for _ in range(count):
            self._step()
        if self.draws.order.is_cuda:
            torch.cuda.synchronize()

    @torch.no_grad()
    def _shared(self) -> Shared:
        drawn, backbone = self.draws(), self.draws.parts.backbone
        state = backbone.encode(drawn.model_input, drawn.timestep, drawn.condition)
        return Shared(drawn, state, backbone.decode(state, None))

    def _eager(self) -> None:
        shared = self._shared()
        for arm in self.arms.values():
            arm.step(shared)

    def _captured(self) -> Callable[[], None]:
        """Record the shared part and each arm's step; a step then is the replay of all, arms beside each other."""
        first, shared = capture(self._shared, self.draws.generator)
        first.replay()  # a recorded pass has computed nothing yet
        graphs = []
        for arm in self.arms.values():
            with arm.unchanged():
                graphs.append(capture(partial(arm.step, shared))[0])
        self.draws.restart()
        lead, streams = torch.cuda.Stream(), [torch.cuda.Stream() for _ in graphs]

        def replay() -> None:
            for stream in streams:  # nobody may still be reading the last batch
                lead.wait_stream(stream)
            with torch.cuda.stream(lead):
                first.replay()
            for stream, graph in zip(streams, graphs, strict=True):
                stream.wait_stream(lead)
                with torch.cuda.stream(stream):
                    graph.replay()

        return replay


def capture(function: Callable[[], Any], generator: torch.Generator | None = None) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Record a function as a graph, after it has run a few times; returns the graph and the memory of its results."""
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    if generator is not None:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        results = function()
    torch.cuda.synchronize()
    return graph, results
