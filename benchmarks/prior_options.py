"""What a cheaper prior pass does to the LISA loss and its gradient, measured on the embedded tiny base.

    every k-th micro-batch (lisa.every)   unbiased; how much noisier is the gradient of one optimizer step?
    fp8 (e4m3, emulated, one scale a tensor; weights and inputs of all linear and convolution layers of the frozen
    decoder half)                         biased; how far does the target y - m0 move?

Gradients are those of single clips after a short training. With G the denoising gradient of a micro-batch and L its
weighted LISA gradient, a step of n micro-batches has variance (Var G + Var L + 2 Cov) / n with LISA on all of them, and
(Var G + k Var L + 2 Cov) / n with LISA on every k-th, its weight times k.

    python benchmarks/prior_options.py MANIFEST        # of demo data; minutes on one core
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lisa_video.conditioning import EncodedBatch, encode_batch
from lisa_video.config.load import parse_config
from lisa_video.data.batch import SampleKey, collate
from lisa_video.data.clips import PoseClipDataset
from lisa_video.models.build import build_backbone, build_denoiser, build_sigmas
from lisa_video.objective import LISAWeight, Objective

RESULTS = Path(__file__).parent / "results"
_BASE = Path(__file__).parent.parent / "lisa_video/assets/tiny_svd"
_E4M3_MAX = 448.0


def main() -> None:
    """Train shortly, measure, print, write `results/prior_options.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--train-steps", type=int, default=60)
    parser.add_argument("--samples", type=int, default=48)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = parse_config(
        {
            "run_dir": "unused",
            "data": {"manifest": arguments.manifest, "num_frames": 8, "frame_stride": 2, "size": [64, 64]},
            "backbone": {"path": str(_BASE), "options": {"variant": "fp16", "norm_groups": 8}},
            "branch": {"pose_channels": [16, 32, 64, 64], "pose_last_init": "default"},
        },
        "benchmark",
    )
    parts = build_backbone(config.backbone)
    model = build_denoiser(config, parts)
    objective = Objective(parts.backbone.process, build_sigmas(config.noise), LISAWeight(0.2), 0)
    dataset = PoseClipDataset.for_training(config.data, 0)

    def batch(position: int) -> EncodedBatch:
        clip = dataset[SampleKey(position, position % len(dataset))]
        return encode_batch(parts.codec, collate([clip]), config.conditioning, 0)

    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    for step in tqdm(range(arguments.train_steps), desc="training"):
        objective(model, batch(step)).total.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    first = arguments.train_steps
    samples = range(first, first + arguments.samples)
    result: dict[str, Any] = {
        "training_steps": arguments.train_steps,
        "samples": arguments.samples,
        "every": gradient_noise(model, objective, [batch(position) for position in tqdm(samples, desc="encoding")]),
        "fp8": fp8_error(model, objective, [batch(position) for position in samples][:16]),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "prior_options.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def gradient_noise(model: nn.Module, objective: Objective, batches: list[EncodedBatch]) -> dict[str, Any]:
    """Variance of the branch's gradient in units of that with LISA on every micro-batch, by k."""
    branch = list(model.branch.parameters())
    without_lisa = replace(objective, lisa_every=2)  # its micro-batch 1
    denoising, lisa = [], []
    for encoded in tqdm(batches, desc="gradients"):
        total, plain = (_flat(loss(model, encoded, 1).total, branch) for loss in (objective, without_lisa))
        denoising.append(plain)
        lisa.append(total - plain)
    g, v = torch.stack(denoising), torch.stack(lisa)
    centred_g, centred_l = g - g.mean(0), v - v.mean(0)
    scale = 1 / (len(batches) - 1)
    var_g, var_l = (float((centred * centred).sum() * scale) for centred in (centred_g, centred_l))
    covariance = float((centred_g * centred_l).sum() * scale)
    whole = var_g + var_l + 2 * covariance
    return {
        "lisa_share_of_variance": round(var_l / whole, 5),
        "norm_of_mean_lisa_over_denoising_gradient": round(float(v.mean(0).norm() / g.mean(0).norm()), 4),
        "variance_ratio": {str(k): round((var_g + k * var_l + 2 * covariance) / whole, 4) for k in (1, 2, 4, 8)},
    }


def _flat(loss: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def fp8_error(model: nn.Module, objective: Objective, batches: list[EncodedBatch]) -> dict[str, float]:
    """Mean square of what fp8 changes in m0, over that of the target y - m0, and the change of the LISA loss."""
    moved, size, loss, loss_fp8 = 0.0, 0.0, 0.0, 0.0
    with torch.no_grad():
        for encoded in tqdm(batches, desc="fp8"):
            sigma, noise = objective.draw(encoded)
            x_s = objective.process.add_noise(encoded.latents, noise, sigma)
            target = objective.process.target(encoded.latents, noise, sigma)
            exact = model(x_s, sigma, encoded.condition, encoded.pose_maps)
            with _in_fp8(model.backbone.unet.up_blocks):
                coarse = model(x_s, sigma, encoded.condition, encoded.pose_maps).frozen
            moved += float((coarse - exact.frozen).square().mean())
            size += float((target - exact.frozen).square().mean())
            loss += float((exact.lisa - target + exact.frozen).square().mean())
            loss_fp8 += float((exact.lisa - target + coarse).square().mean())
    return {"target_moved": round(moved / size, 5), "lisa_loss_ratio": round(loss_fp8 / loss, 5)}


@contextmanager
def _in_fp8(net: nn.Module) -> Iterator[None]:
    layers = [part for part in net.modules() if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d)]
    weights = [layer.weight.data for layer in layers]
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: tuple(map(_rounded, inputs))) for layer in layers]
    for layer in layers:
        layer.weight.data = _rounded(layer.weight.data)
    try:
        yield
    finally:
        for layer, weight, hook in zip(layers, weights, hooks, strict=True):
            layer.weight.data = weight
            hook.remove()


def _rounded(x: Tensor) -> Tensor:
    scale = x.abs().amax().clamp(min=1e-12) / _E4M3_MAX
    return (x / scale).to(torch.float8_e4m3fn).to(x.dtype) * scale


if __name__ == "__main__":
    main()
