"""The frozen base of the benchmark: a UNet trained on the clips without poses, in graphs."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from tqdm import trange
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from benchmarks.convergence.clips import load_clips
from benchmarks.convergence.race import Draws, capture
from lisa_video.config.load import load_config
from lisa_video.data.manifest import file_digest, read_header
from lisa_video.models.backbone import BackboneParts
from lisa_video.models.svd.build import parts_from_modules
from lisa_video.models.svd.norm import set_norm_groups
from lisa_video.models.svd.tiny import save_checkpoint, tiny_unet
from lisa_video.pretraining.base_init import fit_still_picture, initialise_as_still_picture
from lisa_video.pretraining.loop import write_record

SIZES = {"small": (64, 64, 32, 32), "medium": (64, 96, 128, 128), "large": (128, 192, 256, 256)}
"""Widths of the UNet's four levels: 5.5, 20 and 78 million parameters."""

EMBEDDED = "embedded"
"""In place of a size: go on from the embedded base, which has the widths of "small"."""

_EMBEDDED = "lisa_video/assets/tiny_svd"
_NORM_GROUPS, _LATENT_CHANNELS = 8, 16  # of the embedded base, whose VAE all bases share
_RATE, _WARM_UP_STEPS, _DECAY, _SEED = 1e-3, 50, 0.995, 0


def train_base(
    run_config: Path, manifest: str, out: Path, *, size: str, steps: int, batch: int, seconds: float | None
) -> None:
    """Train a base on its own denoising loss and save it in the hub's layout.

    Args:
        run_config: its clips and conditions are used.
        manifest: data set.
        out: folder of the checkpoint.
        size: one of `SIZES`, or `EMBEDDED`.
        steps: of training; the rate falls to 0 along a cosine.
        batch: clips a step.
        seconds: if the steps would take longer, fewer are made; the record says how many.
    """
    config = load_config(
        run_config, [f"data.manifest={manifest}", f"training.micro_batch_size={batch}", f"training.max_steps={steps}"]
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    modules = _new_modules(size, config.data.num_frames)
    parts = parts_from_modules(*modules)
    parts.codec.to(device)
    parts.backbone.to(device)
    clips = load_clips(config.data, "train", parts.codec, device)
    started = time.perf_counter()
    training = _Training(parts, Draws(config, parts, clips, _SEED), new=size != EMBEDDED)
    losses = training.run(steps, seconds)
    unet, vae, image_encoder, processor = modules
    save_checkpoint(out, unet.cpu(), vae.cpu(), image_encoder.cpu(), processor, variant="fp16")
    start = {"unet": _EMBEDDED} if size == EMBEDDED else {"unet_widths": SIZES[size]}
    made = {"seed": _SEED, **start, "vae": _EMBEDDED, "steps": len(losses), "batch": batch}
    facts = {
        "recipe": made,
        "made_by": "python -m benchmarks.convergence base",
        "seconds": round(time.perf_counter() - started),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "manifest_digest": file_digest(manifest),
        "data": read_header(Path(manifest)),
    }
    write_record(out / "training.json", {"base": losses}, **facts)


def _new_modules(size: str, num_frames: int) -> tuple[Any, Any, Any, Any]:
    """UNet with new weights, or the embedded one; the embedded VAE, image encoder and processor."""
    torch.manual_seed(_SEED)
    embedded = {"variant": "fp16", "torch_dtype": torch.float32}
    if size == EMBEDDED:
        unet = UNetSpatioTemporalConditionModel.from_pretrained(_EMBEDDED, subfolder="unet", **embedded)
        unet.register_to_config(num_frames=num_frames)
    else:
        unet = tiny_unet(SIZES[size], _LATENT_CHANNELS, num_frames)
    vae = AutoencoderKLTemporalDecoder.from_pretrained(_EMBEDDED, subfolder="vae", **embedded)
    image_encoder = CLIPVisionModelWithProjection.from_pretrained(_EMBEDDED, subfolder="image_encoder", **embedded)
    processor = CLIPImageProcessor.from_pretrained(_EMBEDDED, subfolder="feature_extractor")
    for network in (unet, vae):
        set_norm_groups(network, _NORM_GROUPS)
    return unet, vae, image_encoder, processor


class _Training:
    """The UNet from a still picture on, with a moving average; on a GPU each step is one graph.

    Args:
        parts: on the device; the backbone is trained in place.
        draws: of the steps.
        new: the UNet has been trained by nobody yet.
    """

    def __init__(self, parts: BackboneParts, draws: Draws, new: bool) -> None:
        self.backbone, self.draws = parts.backbone, draws
        if new:
            drawn = draws()
            fit = fit_still_picture(drawn.target, drawn.model_input, drawn.condition.image_latents)
            initialise_as_still_picture(self.backbone.unet, fit)
        self.backbone.requires_grad_(True).train()
        self.parameters = list(self.backbone.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        on_gpu, device = draws.order.is_cuda, draws.order.device
        self.rate, self.loss = torch.zeros((), device=device), torch.zeros((), device=device)
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.rate if on_gpu else 0.0, betas=(0.9, 0.99), fused=True, capturable=on_gpu
        )
        self.advance = self._step
        if on_gpu:
            self.advance = capture(self._step, draws.generator)[0].replay  # at rate 0

    def run(self, steps: int, seconds: float | None) -> list[float]:
        """Train and leave the average in the backbone; returns the loss of each step."""
        steps = self._affordable(steps, seconds)
        for state in self.optimizer.state.values():  # as if there had been no step yet
            for value in state.values():
                value.zero_()
        self.draws.restart()
        losses = torch.zeros(steps, device=self.loss.device)
        for number in trange(steps, desc="base", unit="step"):
            self._set_rate(_RATE * min((number + 1) / _WARM_UP_STEPS, 0.5 * (1 + math.cos(math.pi * number / steps))))
            self.advance()
            losses[number] = self.loss
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.average)
        self.backbone.requires_grad_(False).eval().cpu()
        values: list[float] = losses.tolist()
        return values

    def _step(self) -> None:
        drawn = self.draws()
        self.optimizer.zero_grad(set_to_none=True)
        state = self.backbone.encode(drawn.model_input, drawn.timestep, drawn.condition)
        error = (self.backbone.decode(state, None) - drawn.target).square().mean()
        error.backward()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        torch._foreach_mul_(gradients, (1 / (torch.nn.utils.get_total_norm(gradients) + 1e-6)).clamp(max=1))
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - _DECAY)
        self.loss.copy_(error.detach())

    def _set_rate(self, rate: float) -> None:
        self.rate.fill_(rate)
        if not self.rate.is_cuda:
            self.optimizer.param_groups[0]["lr"] = rate

    def _affordable(self, steps: int, seconds: float | None) -> int:
        """Steps that fit into the seconds, from the time of ten at rate 0."""
        if seconds is None:
            return steps
        started = time.perf_counter()
        for _ in range(10):
            self.advance()
        self.loss.item()  # waits
        return min(steps, int(seconds / ((time.perf_counter() - started) / 10)))
