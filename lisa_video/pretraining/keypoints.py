"""Training of the demo's keypoint network on the exact poses of the rendered demo data."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from lisa_video.data.manifest import Manifest, Split
from lisa_video.data.video_io import read_frames
from lisa_video.pose.accuracy import PCKCounts, count_correct, total
from lisa_video.pose.detectors.keypoint_net import KeypointNetDetector
from lisa_video.pose.keypoint_net import KeypointMaps, KeypointNet, heatmap_target, network_input, weights_digest
from lisa_video.pose.keypoints import load_keypoints
from lisa_video.pose.skeleton import VISIBLE_SCORE, skeleton_by_name
from lisa_video.pretraining.keypoint_augmentation import PosedFrames, augment

TRAINING_FILE = "training.json"
HIDDEN_WEIGHT = 0.3
"""Share of a hidden joint in the loss: its place is a guess from the rest of the body."""
HEAT_SIGMA_PX = 1.5
"""Width of the target around a joint, pixels of the network's picture: under one cell of the heatmap (2 px)."""
_MAX_GRADIENT_NORM = 5.0
_WARMUP = 0.05  # share of the steps
_LOSS_POINTS = 200  # of the curve in training.json

logger = logging.getLogger(__name__)


class LoadedFrames(NamedTuple):
    """Pictures of a split in memory, at the network's size.

    Attributes:
        frames: (N, S, S, 3) uint8.
        xy: (N, K, 2) pixels of these pictures, NaN where unknown.
        score: (N, K) in [0, 1].
    """

    frames: np.ndarray
    xy: np.ndarray
    score: np.ndarray


def load_frames(
    manifest: Manifest, size: int, *, max_clips: int, frames_per_clip: int, generator: np.random.Generator
) -> LoadedFrames:
    """Read some frames of at most `max_clips` clips; memory is max_clips x frames_per_clip x size² x 3 bytes."""
    frames, xy, score = [], [], []
    for index in tqdm(_spread(len(manifest), max_clips), desc=f"read {manifest.split} clips", unit="clip"):
        record = manifest[index]
        count = min(frames_per_clip, record.num_frames)
        chosen = np.sort(generator.choice(record.num_frames, size=count, replace=False))
        pictures = read_frames(manifest.resolve(record.video), record.in_video(chosen))
        poses = load_keypoints(manifest.resolve(record.keypoints)).frames(chosen)
        scale = np.array([size / pictures.shape[2], size / pictures.shape[1]], np.float32)
        resized = network_input(pictures, size).permute(0, 2, 3, 1)
        frames.append(resized.add(1.0).mul(127.5).round().clamp(0, 255).byte().numpy())
        xy.append(poses.xy[:, 0] * scale)
        score.append(poses.score[:, 0])
    return LoadedFrames(np.concatenate(frames), np.concatenate(xy), np.concatenate(score))


def keypoint_loss(maps: KeypointMaps, batch: PosedFrames) -> Float[Tensor, ""]:
    """Cross-entropy of the heatmap against a normal density around the joint, plus BCE of visibility.

    The first is averaged over joints in the frame, hidden ones weighted by `HIDDEN_WEIGHT`; the second over all.
    The entropy of the target is subtracted, so that a perfect heatmap costs 0.
    """
    visible = (batch.score >= VISIBLE_SCORE).float()
    known = (batch.score > 0) & batch.xy.isfinite().all(dim=2)
    weight = torch.where(known, torch.where(visible > 0, 1.0, HIDDEN_WEIGHT), 0.0)
    size = (batch.frames.shape[2], batch.frames.shape[3])
    target = heatmap_target(batch.xy.nan_to_num(), size, HEAT_SIGMA_PX).flatten(2)
    log_heat = functional.log_softmax(maps.heat_logits.flatten(2), dim=2)
    divergence = (torch.xlogy(target, target) - target * log_heat).sum(dim=2)  # (N,K)
    place = (weight * divergence).sum() / weight.sum().clamp(min=1.0)
    seen = functional.binary_cross_entropy_with_logits(maps.visible_logits, visible)
    return place + seen


def evaluate(detector: KeypointNetDetector, manifest_path: str | Path, split: Split, *, max_clips: int) -> PCKCounts:
    """PCK of the detector on the stored frames of a split, against their exact poses."""
    manifest = Manifest(manifest_path, split)
    counts = []
    for index in _spread(len(manifest), max_clips):
        record = manifest[index]
        wanted = record.in_video(np.arange(record.num_frames))
        found = detector.detect(read_frames(manifest.resolve(record.video), wanted))
        counts.append(count_correct(found, load_keypoints(manifest.resolve(record.keypoints))))
    return total(counts)


def train_keypoint_net(
    manifest_path: str | Path,
    out_dir: str | Path,
    *,
    steps: int,
    batch_size: int = 64,
    lr: float = 3e-3,
    seed: int = 0,
    device: str = "cpu",
    size: int = 64,
    width: int = 32,
    depth: int = 3,
    bf16: bool = False,
    max_clips: int = 4000,
    frames_per_clip: int = 8,
    max_val_clips: int = 200,
) -> dict[str, Any]:
    """Train from scratch, write the network and `training.json` to `out_dir`, return what is in that file.

    Args:
        manifest_path: data with splits "train" and "val" and exact poses; the first person is learnt.
        out_dir: receives `model.safetensors`, `config.json`, `training.json`.
        steps: optimiser steps.
        batch_size: pictures a step.
        lr: peak of the learning rate (AdamW, linear warm-up, cosine to 0).
        seed: of weights, order and augmentation.
        device: where to train.
        size: side of the network's pictures, pixels.
        width: see `KeypointNet`.
        depth: see `KeypointNet`.
        bf16: convolutions in bfloat16; a third less time on processors that have it, much more on others.
        max_clips: bound of the clips kept in memory.
        frames_per_clip: frames kept of each, drawn at random.
        max_val_clips: bound of the held-out clips measured at the end.
    """
    torch.manual_seed(seed)
    data = load_frames(
        Manifest(manifest_path, "train"), size,
        max_clips=max_clips, frames_per_clip=frames_per_clip, generator=np.random.default_rng(seed),
    )  # fmt: skip
    net = KeypointNet(size=size, width=width, depth=depth).to(device).to(memory_format=torch.channels_last)
    losses = _fit(net, data, steps=steps, batch_size=batch_size, lr=lr, seed=seed, device=device, bf16=bf16)
    net.save_pretrained(out_dir)
    # Measure what was written, so that rounding to fp16 is part of the result.
    detector = KeypointNetDetector.from_pretrained(out_dir, device)
    counts = evaluate(detector, manifest_path, "val", max_clips=max_val_clips)
    facts = {
        "seed": seed, "steps": steps, "batch_size": batch_size, "lr": lr, "bf16": bf16,
        "train_frames": len(data.frames),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "data_digest": "sha256:" + hashlib.sha256(Path(manifest_path).read_bytes()).hexdigest(),
        "weights_digest": weights_digest(out_dir),
        "val_joints": int(counts.visible.sum()),
        "val_pck": {str(threshold): counts.accuracy(threshold) for threshold in counts.thresholds},
        "val_mean_error_px": counts.mean_error_px,
        "loss": _thinned(losses),
    }  # fmt: skip
    Path(out_dir, TRAINING_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    logger.info("held-out PCK %s", facts["val_pck"])
    return facts


def _fit(
    net: KeypointNet, data: LoadedFrames, *, steps: int, batch_size: int, lr: float, seed: int, device: str, bf16: bool
) -> list[float]:
    """The loop; returns the loss of every step."""
    flip_index = torch.from_numpy(skeleton_by_name("coco17").flip_index)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    losses: list[float] = []
    net.train()
    for _ in (bar := tqdm(range(steps), desc="train keypoint network", unit="step", mininterval=2.0)):
        index = torch.randint(len(data.frames), (batch_size,), generator=generator).numpy()
        pictures = torch.from_numpy(data.frames[index]).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)
        batch = PosedFrames(pictures, torch.from_numpy(data.xy[index]), torch.from_numpy(data.score[index]))
        batch = PosedFrames(*(value.to(device) for value in augment(batch, flip_index, generator)))
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            maps = net(batch.frames.contiguous(memory_format=torch.channels_last))
        loss = keypoint_loss(KeypointMaps(*(value.float() for value in maps)), batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), _MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
    return losses


def _spread(count: int, at_most: int) -> list[int]:
    """Numbers below `count`, all of them or `at_most` at even distances, so that no kind of clip is left out."""
    return [place * count // min(count, at_most) for place in range(min(count, at_most))]


def _rate(step: int, steps: int) -> float:
    warmup = max(1, round(_WARMUP * steps))
    progress = min(1.0, step / max(1, steps))
    return min(1.0, (step + 1) / warmup) * 0.5 * (1.0 + math.cos(math.pi * progress))


def _thinned(losses: list[float]) -> list[list[int | float]]:
    """[step, mean loss since the last point] at no more than `_LOSS_POINTS` places."""
    every = max(1, math.ceil(len(losses) / _LOSS_POINTS))
    spans = range(0, len(losses), every)
    return [[start + len(span), float(np.mean(span))] for start in spans if (span := losses[start : start + every])]
