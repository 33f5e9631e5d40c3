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

import torch
from torch import Tensor, nn

from lisa_video.config.schema import RunConfig
from lisa_video.models.backbone import BackboneParts, SideBranch
from lisa_video.models.build import build_denoiser
from lisa_video.models.controlled import ControlledDenoiser, Prediction
from lisa_video.objective import build_lisa_weight, loss_terms
from lisa_video.pretraining.draws import Drawn, Draws
from lisa_video.pretraining.recorded import capture
from lisa_video.training.optimizer import build_optimizer, parameter_groups, rate_factor

SHARED = ("data", "backbone", "training", "sampling")
"""Sections of the config in which arms of a race are equal."""


class Shared(NamedTuple):
    """What all arms of a step have in common: the batch, and the frozen network's own pass over it."""

    drawn: Drawn
    state: Any  # of the encoder half
    frozen: Tensor  # m0


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

    def steps(self, count: int, done: Callable[[], object] = lambda: None) -> None:
        """Train all arms so many steps further, and call `done` after each."""
        for _ in range(count):
            self._step()
            done()
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
