"""Pictures of the embedded base for the docs: samples without any pose, and the loss curves."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from einops import rearrange
from matplotlib import pyplot as plt
from torchvision.utils import save_image

from lisa_video.config.schema import RunConfig
from lisa_video.data.batch import SampleKey, collate
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.manifest import Manifest
from lisa_video.models.build import build_backbone, build_branch
from lisa_video.pipeline import PoseVideoPipeline


def sample_sheet(config: RunConfig, out_png: Path, num_clips: int = 6) -> None:
    """Sample held-out references with the frozen base alone; rows alternate truth and sample."""
    data = config.data
    dataset = PoseClipDataset(
        Manifest(data.manifest, "val"),
        num_frames=data.num_frames,
        frame_stride=data.frame_stride,
        size=data.size,
        random_start=False,
    )
    batch = collate([dataset[SampleKey(index, index)] for index in range(num_clips)])
    parts = build_backbone(config.backbone)
    pipeline = PoseVideoPipeline.untrained(config, parts, build_branch(config, parts))
    videos = pipeline(
        batch.reference, None, batch.fps, seed=config.seed, keys=batch.clip_ids, num_frames=data.num_frames
    )
    samples = rearrange(videos, "b f h w c -> b f c h w").float() / 255
    rows = torch.stack([(batch.frames + 1) / 2, samples], dim=1)  # truth above sample
    doubled = rearrange(rows, "b r f c h w -> (b r f) c h w").repeat_interleave(2, -1).repeat_interleave(2, -2)
    save_image(doubled, out_png, nrow=data.num_frames, padding=1)


def loss_curves(training_json: Path, out_png: Path) -> None:
    """Plot the loss curves that `training.json` holds."""
    curves = json.loads(training_json.read_text(encoding="utf-8"))["loss_every_20_steps"]
    figure, axes = plt.subplots(1, len(curves), figsize=(4.5 * len(curves), 3), layout="constrained")
    for axis, (name, values) in zip(axes, curves.items(), strict=True):
        axis.plot([20 * (place + 1) for place in range(len(values))], values)
        axis.set(title=name, xlabel="step", ylabel="loss", yscale="log")
        axis.grid(alpha=0.3)
    figure.savefig(out_png, dpi=110)
    plt.close(figure)
