"""The door to DeepSpeed: its dictionary is derived from our config, and one engine holds the one module."""

from __future__ import annotations

import math
import os
import socket
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

import deepspeed
import torch
from torch import Tensor, nn

from lisa_video import distributed
from lisa_video.config.schema import RunConfig
from lisa_video.models.controlled import ControlledDenoiser
from lisa_video.planning.memory import REDUCE_BUCKET
from lisa_video.training.gradient_checks import check_gradients_at_once


def start_process_group() -> None:
    """Join the launcher's process group, or make one of a single process when there is no launcher."""
    if not torch.cuda.is_available():
        # With two CPU ranks DeepSpeed would compile a shared-memory all-reduce first, for minutes; gloo serves.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if "RANK" not in os.environ:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=_free_port())
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(distributed.local_device())
    deepspeed.init_distributed(dist_backend=backend, verbose=False)


def deepspeed_config(config: RunConfig) -> dict[str, Any]:
    """DeepSpeed's dictionary. Nothing in it is said anywhere else by hand."""
    return {
        "train_micro_batch_size_per_gpu": config.training.micro_batch_size,
        "gradient_accumulation_steps": config.training.gradient_accumulation,
        "gradient_clipping": config.optimizer.clip_norm,
        "bf16": {"enabled": config.training.precision == "bf16"},
        "zero_optimization": {
            "stage": config.training.zero_stage,
            "overlap_comm": torch.cuda.is_available(),
            "contiguous_gradients": True,
            "reduce_bucket_size": REDUCE_BUCKET,
        },
        "zero_allow_untested_optimizer": True,
        "wall_clock_breakdown": False,
        "steps_per_print": 10**9,
    }


def parameter_groups(model: nn.Module, config: RunConfig) -> list[dict[str, Any]]:
    """Trainable parameters, grouped by their rate in units of the learning rate.

    The branch's copied layers have 1, its new ones `optimizer.new_layers_rate`, the decoder `lisa.decoder_rate`.
    """
    by_rate: dict[float, list[nn.Parameter]] = defaultdict(list)
    new = tuple(f"branch.{layer}." for layer in getattr(getattr(model, "branch", None), "new_layers", ()))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = config.optimizer.new_layers_rate if name.startswith(new) else 1.0
            if name.startswith("decoder.") and config.lisa is not None:
                rate = config.lisa.decoder_rate
            by_rate[rate].append(parameter)
    return [{"params": parameters, "rate": rate} for rate, parameters in by_rate.items()]


@final
class Engine:
    """A DeepSpeed engine over `ControlledDenoiser`, with AdamW and a warm-up counted in samples.

    Args:
        model: frozen backbone, branch and decoder; only parameters that require gradients are optimised.
        config: of the run.
    """

    def __init__(self, model: ControlledDenoiser, config: RunConfig) -> None:
        self.model, self.config = model, config
        settings = config.optimizer
        parameters = [p for p in model.parameters() if p.requires_grad]
        groups = parameter_groups(model, config)
        optimizer = torch.optim.AdamW(
            groups,
            lr=settings.lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=torch.cuda.is_available() or None,  # no copies of the whole state while it steps
        )
        self._deepspeed, *_ = deepspeed.initialize(
            model=model, model_parameters=parameters, optimizer=optimizer, config=deepspeed_config(config)
        )
        if config.training.zero_stage in (1, 2) and torch.cuda.is_available():  # on a CPU a kernel costs no launch
            check_gradients_at_once(self._deepspeed.optimizer)
        self._parameters, self._plain_norm = parameters, float("nan")
        if config.training.zero_stage == 0 and config.training.precision == "fp32":
            # The one case in which DeepSpeed does not look itself. AdamW passes over what has no gradient.
            optimizer.register_step_pre_hook(lambda *_: self._drop_gradients_that_are_not_finite())

    @property
    def module(self) -> nn.Module:
        """The callable to train: calls go through DeepSpeed's hooks."""
        module: nn.Module = self._deepspeed
        return module

    def set_rate(self, samples_seen: int) -> float:
        """Linear warm-up over `warmup_samples`, then constant; returns the learning rate."""
        settings = self.config.optimizer
        progress = min((samples_seen + 1) / (settings.warmup_samples + 1), 1.0)
        for group in self._deepspeed.optimizer.param_groups:
            group["lr"] = settings.lr * progress * group["rate"]
        return settings.lr * progress

    def backward_and_step(
        self, loss: Tensor, timed: Callable[[str], AbstractContextManager[None]] = lambda part: nullcontext()
    ) -> None:
        """Accumulate gradients; at an accumulation boundary reduce, clip and step, or throw the step away.

        It is thrown away, on all ranks alike, if the norm of the reduced gradients is not finite. A loss that is not
        finite need not have such gradients (a square overflows before its derivative does), so they are made so.

        Args:
            loss: of a micro-batch.
            timed: entered around "backward" and "optimizer".
        """
        with timed("backward"):
            self._deepspeed.backward(loss * torch.where(loss.detach().isfinite(), 1.0, float("nan")))
        if self.config.training.zero_stage == 0 and self._deepspeed.is_gradient_accumulation_boundary():
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            self._plain_norm = float(nn.utils.get_total_norm(gradients))
        with timed("optimizer"):
            self._deepspeed.step()

    def _drop_gradients_that_are_not_finite(self) -> None:
        if not math.isfinite(self._plain_norm):
            self._deepspeed.zero_grad()

    @property
    def step_applied(self) -> bool:
        """Whether the last step changed the weights; the same on every rank."""
        return bool(self._deepspeed.was_step_applied()) and math.isfinite(self.gradient_norm)

    @property
    def gradient_norm(self) -> float:
        """Norm of the last step's gradients before clipping, over all trainable parameters."""
        norm = self._deepspeed.get_global_grad_norm()  # None without ZeRO
        return float(norm) if norm is not None else self._plain_norm

    def save(self, folder: str, tag: str, client_state: dict[str, Any]) -> None:
        """Write a checkpoint; every rank must call it. Frozen weights are left out."""
        self._deepspeed.save_checkpoint(
            folder, tag=tag, client_state=client_state, save_latest=False, exclude_frozen_parameters=True
        )

    def load(self, folder: str, tag: str) -> dict[str, Any]:
        """Load a checkpoint that was written with the same number of ranks; returns the client state."""
        _, client_state = self._deepspeed.load_checkpoint(folder, tag=tag, load_module_strict=False)
        state: dict[str, Any] = client_state
        return state


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
