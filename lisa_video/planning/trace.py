"""One training step on the meta device: what it keeps in memory, and how many operations it takes.

The real modules run the real forward and backward pass on tensors without storage. A dispatch mode follows every
storage from its creation to its end, which is what a GPU's caching allocator would count as allocated, so gradient
checkpointing, shared encoder half and decoder need no formulas of their own.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from lisa_video.config.schema import RunConfig
from lisa_video.models.backbone import BackboneParts, Condition
from lisa_video.models.build import backbone_module, build_denoiser, checkpoint_activations
from lisa_video.models.controlled import ControlledDenoiser
from lisa_video.objective import loss_terms


@dataclass(frozen=True)
class StepTrace:
    """Sizes of one micro-batch's forward and backward pass on one rank.

    Attributes:
        frozen: parameters of the frozen network.
        trainable: parameters of branch and decoder.
        codec: parameters of VAE and image encoder.
        activations: (bytes alive at a peak of the pass besides weights and gradients, share of the gradients that
            exist by then) at all moments that may decide the peak.
        encoding: bytes at the peak of turning pixels into latents and the condition.
        flops: floating-point operations of forward and backward, recomputation included.
        model_flops: the same without recomputation: the work that a utilisation is counted by.
    """

    frozen: int
    trainable: int
    codec: int
    activations: tuple[tuple[int, float], ...]
    encoding: int
    flops: int
    model_flops: int


def trace_step(config: RunConfig, *, count_flops: bool = True) -> StepTrace:
    """Trace the step of a run's largest bucket; takes seconds, on the CPU, and next to no memory.

    Args:
        config: of the run; its weights need not be there if `backbone.path` names the published network.
        count_flops: also count operations (a second pass).

    Raises:
        UserError: there is no such backbone, LISA layer or layout of weights.
    """
    parts = backbone_module(config.backbone.name).outline(config.backbone.path, dict(config.backbone.options))
    dtype = torch.bfloat16 if config.training.precision == "bf16" else torch.float32
    bare = config.model_copy(update={"branch": config.branch.model_copy(update={"init": "random"})})  # nothing to copy
    with torch.device("meta"):
        model = build_denoiser(bare, parts).to("meta", dtype)
    counts = [sum(p.numel() for p in module.parameters()) for module in (parts.backbone, model.trainable, parts.codec)]
    model_flops = flops = 0
    if count_flops:
        with flash_attention(), FlopCounterMode(display=False) as plain:
            _run_step(model, parts, config)
        model_flops = flops = plain.get_total_flops()
    checkpoint_activations(model, config.training.gradient_checkpointing)
    if count_flops and config.training.gradient_checkpointing is not False:
        with flash_attention(), FlopCounterMode(display=False) as checkpointed:
            _run_step(model, parts, config)
        flops = checkpointed.get_total_flops()
    with flash_attention(), _LiveBytes(model) as live:
        _run_step(model, parts, config)
    return StepTrace(counts[0], counts[1], counts[2], live.peaks(), _encoding_peak(parts, config), flops, model_flops)


def largest_bucket(config: RunConfig) -> tuple[int, int, int]:
    """(height, width, frames) of the run's clips; the most pixels, if there are buckets."""
    sizes = config.data.buckets or ((*config.data.size, config.data.num_frames),)
    return max(sizes, key=lambda size: size[0] * size[1] * size[2])


def _run_step(model: ControlledDenoiser, parts: BackboneParts, config: RunConfig) -> None:
    height, width, frames = largest_bucket(config)
    batch, stride, channels = config.training.micro_batch_size, parts.codec.latent_stride, parts.codec.latent_channels
    grid = (height // stride, width // stride)
    with torch.device("meta"):
        latents = torch.empty(batch, frames, channels, *grid)
        tokens = torch.empty(batch, 1, parts.codec.embedding_width)
        condition = Condition(torch.empty(batch, channels, *grid), tokens, torch.empty(batch, 3))
        pose_maps, sigma = torch.empty(batch, frames, 3, height, width), torch.empty(batch)
        noise = torch.empty_like(latents)
        process = model.backbone.process
        x_s, target = process.add_noise(latents, noise, sigma), process.target(latents, noise, sigma)
        prediction = model(x_s, sigma, condition, pose_maps)
        loss_terms(prediction, target, sigma, 0.2).total.backward()  # type: ignore[no-untyped-call]


def _encoding_peak(parts: BackboneParts, config: RunConfig) -> int:
    """With a latent cache only the reference is encoded."""
    height, width, frames = largest_bucket(config)
    shown = frames if config.data.cache is None else 1
    with torch.device("meta"):
        video = torch.empty(config.training.micro_batch_size, shown, 3, height, width)
    with flash_attention(), _LiveBytes(parts.codec) as live:
        parts.codec.encode_video(video)
    return live.peak + 4 * video.numel()


@contextmanager
def flash_attention() -> Iterator[None]:
    """Attention as a GPU computes it, without the matrix of all pairs; the meta device would choose the plain one.

    A patch and not a `TorchFunctionMode`: modes do not reach the recomputation within a backward pass.
    """
    stock = F.scaled_dot_product_attention

    def flash(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs.get("attn_mask") is not None:
            return stock(query, key, value, *args, **kwargs)
        out: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
        return out

    with patch.object(F, "scaled_dot_product_attention", flash):
        yield


@final
class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all storages that were made while it is active and are still referenced.

    Args:
        model: its gradients are taken away as they come, and noted apart.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self._gradients = 0
        self._seen: set[int] = set()
        self._peaks: list[tuple[int, int]] = []
        parameters = [p for p in model.parameters() if p.requires_grad]
        self._total = max(sum(p.numel() * p.element_size() for p in parameters), 1)
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._take)  # type: ignore[no-untyped-call]

    def __enter__(self) -> _LiveBytes:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def peaks(self) -> tuple[tuple[int, float], ...]:
        """See `StepTrace.activations`."""
        moments = [*self._peaks, (self.peak, self._gradients)]
        best: list[tuple[int, float]] = []
        for size, gradients in sorted(moments, key=lambda moment: (-moment[0], -moment[1])):
            if not best or gradients / self._total > best[-1][1]:
                best.append((size, gradients / self._total))
        return tuple(best)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            self._follow(tensor, made_here=False)  # weights, of which a view may come back
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            self._follow(tensor, made_here=True)
        return out

    def _follow(self, tensor: Any, *, made_here: bool) -> None:
        if not isinstance(tensor, Tensor):
            return
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._seen:
            return
        self._seen.add(key)
        size = storage.nbytes() if made_here else 0
        weakref.finalize(storage, self._end, key, size).atexit = False
        self.now += size
        self.peak = max(self.peak, self.now)

    def _end(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size

    def _take(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        size = parameter.grad.untyped_storage().nbytes()
        self._peaks.append((self.peak, self._gradients))
        self._gradients += size
        parameter.grad = None
        self.peak = self.now
