"""The door to DeepSpeed: its dictionary is derived from our config, and one engine holds the one module."""

from __future__ import annotations

import math
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, final

import deepspeed
import torch
from torch import Tensor, nn

from lisa_video import distributed
from lisa_video.config.schema import RunConfig
from lisa_video.models.controlled import ControlledDenoiser
from lisa_video.training.deepspeed_config import deepspeed_config
from lisa_video.training.gradient_checks import check_gradients_at_once
from lisa_video.training.optimizer import build_optimizer, parameter_groups, rate_factor


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


class Fragment(NamedTuple):
    """The part of a parameter that this rank's optimizer owns.

    Attributes:
        start: place of its first element in the flattened parameter.
        values: (n,) float32.
    """

    start: int
    values: Tensor


@final
class Engine:
    """A DeepSpeed engine over `ControlledDenoiser`, with an optimizer and a warm-up counted in samples.

    Args:
        model: frozen backbone, branch and decoder; only parameters that require gradients are optimised.
        config: of the run.
    """

    def __init__(self, model: ControlledDenoiser, config: RunConfig) -> None:
        self.model, self.config, self.stage = model, config, config.training.zero_stage
        self.parameters: dict[str, Any] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        groups = parameter_groups(model, config)
        self._rates = [group["rate"] for group in groups]
        dictionary = deepspeed_config(config, sum(p.numel() for p in model.parameters()))
        if self.stage == 3:
            deepspeed.utils.set_z3_leaf_modules(model, list(model.backbone.units))
        with _left_whole(model, config):
            self._deepspeed, *_ = deepspeed.initialize(
                model=model,
                model_parameters=list(self.parameters.values()),
                # On the GPU no copies of the whole state while it steps; in host memory it is the fast one.
                optimizer=build_optimizer(
                    groups,
                    config.optimizer,
                    fused=torch.cuda.is_available() or config.training.offload_optimizer or None,
                ),
                config=dictionary,
            )
        if self.stage == 0 and config.training.precision == "bf16":
            # DeepSpeed's wrapper makes the states by a step without gradients, which Adam would count.
            for state in self._deepspeed.optimizer.optimizer.state.values():
                if "step" in state:
                    state["step"].zero_()
        self._plain_norm = float("nan")
        if self.stage in (1, 2) and torch.cuda.is_available():  # on a CPU a kernel costs no launch
            check_gradients_at_once(self._deepspeed.optimizer)
        if self.stage == 0 and config.training.precision == "fp32":
            # The one case in which DeepSpeed does not look itself. AdamW passes over what has no gradient.
            self._deepspeed.optimizer.register_step_pre_hook(lambda *_: self._drop_gradients_that_are_not_finite())

    @property
    def module(self) -> nn.Module:
        """The callable to train: calls go through DeepSpeed's hooks."""
        module: nn.Module = self._deepspeed
        return module

    def set_rate(self, samples_seen: int, samples_left: int) -> float:
        """Warm-up, constant, cool-down (see `rate_factor`); returns the learning rate."""
        seen, left = torch.tensor([samples_seen, samples_left], dtype=torch.float64)
        lr = self.config.optimizer.lr * float(rate_factor(self.config.optimizer, seen, left))
        for group, rate in zip(self._deepspeed.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = lr * rate
        return lr

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
        if self.stage == 0 and self._deepspeed.is_gradient_accumulation_boundary():
            gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
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

    def masters(self) -> dict[str, Fragment]:
        """The float32 weights that this rank's optimizer owns, by parameter; views that change with each step."""
        optimizer = self._deepspeed.optimizer
        if self.stage == 0 and self.config.training.precision == "bf16":
            pairs = zip(chain(*optimizer.fp16_groups), chain(*optimizer.fp32_groups), strict=True)
            copies = {id(p): Fragment(0, copy.detach().reshape(-1)) for p, copy in pairs}
            return {name: copies[id(p)] for name, p in self.parameters.items()}
        return {name: owned for name, p in self.parameters.items() if (owned := self._owned(p)) is not None}

    def _owned(self, parameter: Any) -> Fragment | None:
        if self.stage == 0:
            return Fragment(0, parameter.detach().reshape(-1))
        if self.stage == 3:
            # The public safe_get_local_fp32_param copies offloaded values to the GPU.
            values, _ = self._deepspeed.optimizer._get_fp32_opt_state_partition(parameter, release_swap_buffers=False)
            start = distributed.rank() * len(values)
            return Fragment(start, values.detach()[: max(parameter.ds_numel - start, 0)])  # without the padding
        if parameter._hp_mapping is None:  # all of it is another rank's
            return None
        mapping = parameter._hp_mapping
        return Fragment(mapping.lp_fragment_address.start, mapping.hp_fragment.detach())

    def whole(self, fragments: Mapping[str, Fragment]) -> Iterator[tuple[str, Tensor]]:
        """Put parts like those of `masters` together: name and full tensor of each parameter, in float32.

        Every rank must exhaust it.
        """
        device = distributed.local_device()  # asks the driver
        for name, p in self.parameters.items():
            shape = p.ds_shape if self.stage == 3 else p.shape
            full = torch.zeros(shape.numel(), device=device)
            if name in fragments:
                start, values = fragments[name]
                full[start : start + len(values)] = values
            if self.stage > 0:
                distributed.add_up(full)
            yield name, full.view(shape)

    @contextmanager
    def holding(self, fragments: Mapping[str, Fragment]) -> Iterator[None]:
        """Put other weights into the module for a while, then its own back bit for bit; every rank must call it."""
        if self.stage == 3:
            own = {name: p.ds_tensor.clone() for name, p in self.parameters.items()}
            others: Iterable[tuple[str, Tensor]] = [(name, part.values) for name, part in fragments.items()]
        else:
            own = {name: p.detach().clone() for name, p in self.parameters.items()}
            others = self.whole(fragments)
        try:
            self._overwrite(others)
            yield
        finally:
            self._overwrite(own.items())

    @torch.no_grad()
    def _overwrite(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Set full parameters, or at stage 3 this rank's parts of them."""
        if self.stage < 3:
            for name, value in weights:
                self.parameters[name].copy_(value)
            return
        self._deepspeed.optimizer.checkpoint_event_prologue()  # nothing stays gathered with old values
        for name, value in weights:
            self.parameters[name].ds_tensor[: len(value)].copy_(value)
        self._deepspeed.optimizer.checkpoint_event_epilogue()

    def gathered(self, tensor: Tensor) -> AbstractContextManager[None]:
        """While entered, a parameter that stage 3 splits is whole on every rank; every rank must enter it."""
        context: AbstractContextManager[None] = deepspeed.zero.GatheredParameters([tensor])
        return context

    @property
    def checkpoint_bytes(self) -> int:
        """About how large a checkpoint is: weights, and in float32 masters, two moments and the average."""
        width = 2 if self.config.training.precision == "bf16" else 4
        count: int = sum(getattr(p, "ds_numel", p.numel()) for p in self.parameters.values())
        return count * (width + 4 * 4)

    def save(self, folder: Path, tag: str, client_state: dict[str, Any], write: Callable[[Any, Path], None]) -> None:
        """Hand the states of a checkpoint to `write`; every rank must call it. Frozen weights are left out.

        Args:
            folder: of all checkpoints.
            tag: name of this one.
            client_state: returned by `load`.
            write: gets each state and its path; may keep no reference to its tensors.
        """
        writer = self._deepspeed.checkpoint_engine
        writer.save = lambda state_dict, path: write(state_dict, Path(path))  # before the class's own method
        try:
            self._deepspeed.save_checkpoint(
                str(folder), tag=tag, client_state=client_state, save_latest=False, exclude_frozen_parameters=True
            )
        finally:
            del writer.save

    def load(self, folder: Path, tag: str, *, universal: bool = False) -> dict[str, Any]:
        """Load a checkpoint of as many ranks, or one that was made `universal`; returns the client state."""
        self._deepspeed._config.load_universal_checkpoint = universal
        _, client_state = self._deepspeed.load_checkpoint(str(folder), tag=tag, load_module_strict=False)
        self._deepspeed._config.load_universal_checkpoint = False
        state: dict[str, Any] = client_state
        return state


def convert_to_universal(checkpoint: Path, universal: Path) -> str | None:
    """Write DeepSpeed's form of a checkpoint that any number of ranks can read; returns what went wrong."""
    shutil.rmtree(universal, ignore_errors=True)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    command += ["--input_folder", str(checkpoint), "--output_folder", str(universal)]
    command += ["--num_extract_workers", "1", "--num_merge_workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (checkpoint.parent / "latest_universal").unlink(missing_ok=True)
    return None if done.returncode == 0 else done.stderr[-2000:]


@contextmanager
def _left_whole(model: nn.Module, config: RunConfig) -> Iterator[None]:
    """While entered, a frozen network that is not to be split is out of the model, and later a plain attribute of it.

    Stage 3 splits and releases all parameters that it finds among the model's sub-modules.
    """
    if config.training.zero_stage < 3 or config.training.shard_frozen:
        yield
        return
    backbone = model.backbone
    del model.backbone
    yield
    dtype = torch.bfloat16 if config.training.precision == "bf16" else torch.float32
    model.__dict__["backbone"] = backbone.to(distributed.local_device(), dtype)


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
