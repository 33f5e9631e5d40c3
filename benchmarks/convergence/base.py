"""The frozen base of the benchmark: a UNet trained on the clips without poses, in graphs."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder
from tqdm import trange

from benchmarks.convergence.clips import load_clips
from benchmarks.convergence.race import Draws, capture
from lisa_video.config.load import load_config
from lisa_video.data.manifest import file_digest, read_header
from lisa_video.models.svd.build import parts_from_modules
from lisa_video.models.svd.norm import set_norm_groups
from lisa_video.models.svd.tiny import save_checkpoint, tiny_image_encoder, tiny_unet
from lisa_video.pretraining.base_init import fit_still_picture, initialise_as_still_picture
from lisa_video.pretraining.loop import write_record

SIZES = {"small": (64, 64, 32, 32), "medium": (64, 96, 128, 128), "large": (128, 192, 256, 256)}
"""Widths of the UNet's four levels: 5.5, 20 and 78 million parameters."""

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
        size: one of `SIZES`.
        steps: of training; the rate falls to 0 along a cosine.
        batch: clips a step.
        seconds: if the steps would take longer, fewer are made; the record says how many.
    """
    config = load_config(
        run_config, [f"data.manifest={manifest}", f"training.micro_batch_size={batch}", f"training.max_steps={steps}"]
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(_SEED)
    image_encoder, processor = tiny_image_encoder()
    unet = tiny_unet(SIZES[size], _LATENT_CHANNELS, config.data.num_frames)
    vae = AutoencoderKLTemporalDecoder.from_pretrained(
        _EMBEDDED, subfolder="vae", variant="fp16", torch_dtype=torch.float32
    )
    for network in (unet, vae):
        set_norm_groups(network, _NORM_GROUPS)
    parts = parts_from_modules(unet, vae, image_encoder, processor)
    parts.codec.to(device)
    backbone = parts.backbone.to(device)
    draws = Draws(config, parts, load_clips(config.data, "train", parts.codec, device), _SEED)
    drawn = draws()
    initialise_as_still_picture(
        backbone.unet, fit_still_picture(drawn.target, drawn.model_input, drawn.condition.image_latents)
    )
    draws.restart()
    backbone.requires_grad_(True).train()
    parameters = list(backbone.parameters())
    average = [p.detach().clone() for p in parameters]
    rate = torch.full((), 0.0, device=device)
    optimizer = torch.optim.AdamW(
        parameters,
        lr=rate if device.type == "cuda" else 0.0,
        betas=(0.9, 0.99),
        fused=True,
        capturable=device.type == "cuda",
    )
    loss = torch.zeros((), device=device)

    def step() -> None:
        drawn = draws()
        optimizer.zero_grad(set_to_none=True)
        prediction = backbone.decode(backbone.encode(drawn.model_input, drawn.timestep, drawn.condition), None)
        error = (prediction - drawn.target).square().mean()
        error.backward()
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_mul_(gradients, (1 / (torch.nn.utils.get_total_norm(gradients) + 1e-6)).clamp(max=1))
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - _DECAY)
        loss.copy_(error.detach())

    advance = step
    if device.type == "cuda":
        graph, _ = capture(step, draws.generator)  # at rate 0
        advance = graph.replay
    losses: list[float] = []
    started = time.perf_counter()
    steps = _affordable(advance, steps, seconds, device)
    for state in optimizer.state.values():  # as if there had been no step yet
        for value in state.values():
            value.zero_()
    draws.restart()
    for number in trange(steps, desc="base", unit="step"):
        value = _RATE * min((number + 1) / _WARM_UP_STEPS, 0.5 * (1 + math.cos(math.pi * number / steps)))
        rate.fill_(value)
        if device.type == "cpu":
            optimizer.param_groups[0]["lr"] = value
        advance()
        if number % 20 == 19:
            losses.append(loss.item())
    with torch.no_grad():
        torch._foreach_copy_(parameters, average)
    backbone.requires_grad_(False).eval().cpu()
    save_checkpoint(out, unet.cpu(), vae.cpu(), image_encoder.cpu(), processor, variant="fp16")
    facts = {
        "recipe": {"seed": _SEED, "unet_widths": SIZES[size], "vae": _EMBEDDED, "steps": steps, "batch": batch},
        "made_by": "python -m benchmarks.convergence base",
        "seconds": round(time.perf_counter() - started),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "manifest_digest": file_digest(manifest),
        "data": read_header(Path(manifest)),
    }
    write_record(out / "training.json", {"base": [value for value in losses for _ in range(20)]}, **facts)


def _affordable(advance: object, steps: int, seconds: float | None, device: torch.device) -> int:
    """Steps that fit into the seconds, from the time of ten at rate 0."""
    if seconds is None:
        return steps
    assert callable(advance)
    started = time.perf_counter()
    for _ in range(10):
        advance()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return min(steps, int(seconds / ((time.perf_counter() - started) / 10)))
