"""Trains the tests' RTMPose on demo data, through mmpose's own transforms, losses and checkpoint format.

    lisa-video demo-data runs/demo600 --clips 600 --seed 0
    python tests/assets/mmpose_demo/train.py runs/demo600/manifest.jsonl

writes `rtmpose_demo.pth` (half precision) and `training.json` with the accuracy on held-out clips beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import mmengine
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from lisa_video.config.detector import DetectorSettings, PersonSettings
from lisa_video.data.manifest import Manifest, Split
from lisa_video.data.video_io import read_frames
from lisa_video.pose.accuracy import PCKCounts, count_correct, total
from lisa_video.pose.detectors.load import load_detector
from lisa_video.pose.detectors.mmpose_imports import prepare_mmpose
from lisa_video.pose.keypoints import load_keypoints
from lisa_video.pose.skeleton import VISIBLE_SCORE

HERE = Path(__file__).parent
CONFIG, CHECKPOINT = HERE / "rtmpose_demo.py", HERE / "rtmpose_demo.pth"
HIDDEN_WEIGHT = 0.5  # share of a joint behind a surface in the loss; mmpose leaves out what is below 0.5


class DemoFrames:
    """Frames of the train split in memory, each as a sample of mmpose's pipeline; the whole frame is the person's box.

    To mmpose 0 is the centre of the first pixel, so 0.5 is taken off the keypoints.
    """

    def __init__(self, manifest: Manifest, meta: dict[str, Any]) -> None:
        numbers = tqdm(range(len(manifest)), "read", mininterval=10.0)
        clips = [(_read(manifest, index), _poses(manifest, index)) for index in numbers]
        self.bgr = np.concatenate([frames[..., ::-1] for frames, _ in clips])
        xy = np.concatenate([poses.xy[:, 0] for _, poses in clips])
        score = np.concatenate([poses.score[:, 0] for _, poses in clips])
        known = np.isfinite(xy).all(axis=-1) & (score > 0)
        self.weight = np.where(known, np.where(score >= VISIBLE_SCORE, 1.0, HIDDEN_WEIGHT), 0.0).astype(np.float32)
        self.xy = np.where(known[..., None], xy - 0.5, 0.0).astype(np.float32)
        self.meta = meta

    def sample(self, index: int) -> dict[str, Any]:
        height, width = self.bgr.shape[1:3]
        return {
            "img": self.bgr[index], "img_shape": (height, width), "id": index, "img_id": index, "category_id": 1,
            "bbox": np.array([[0, 0, width, height]], np.float32), "bbox_score": np.ones(1, np.float32),
            "keypoints": self.xy[index][None], "keypoints_visible": self.weight[index][None], **self.meta,
        }  # fmt: skip


def start(head: nn.Module) -> None:
    """Start the head as what it is to become: a reader of one small heatmap for each joint.

    From mmpose's start, made for a pretrained backbone, the network stays at the mean pose for a long time. Here each
    hidden unit is one cell of the joint's 8 x 8 map, and votes for the places around that cell's centre. All stays
    trainable.
    """
    columns, rows = head.in_featuremap_size
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    with torch.no_grad():
        head.final_layer.reset_parameters()
        head.mlp[1].weight[: rows * columns] = torch.eye(rows * columns)
        for layer, cell, count in ((head.cls_x, column, columns), (head.cls_y, row, rows)):
            width = layer.out_features / count  # of a cell, in places
            centre = (cell.flatten() + 0.5) * width
            distance = (torch.arange(layer.out_features)[:, None] - centre) / width
            layer.weight[:, : rows * columns] = 0.1 * torch.exp(-2.0 * distance**2)


def train(manifest_path: Path, *, steps: int, batch_size: int, lr: float, seed: int) -> list[float]:
    """Train from scratch, write the checkpoint, return the loss of each step."""
    prepare_mmpose()
    from mmengine.config import Config
    from mmengine.dataset import Compose, pseudo_collate
    from mmengine.registry import init_default_scope
    from mmpose.apis import init_model

    torch.manual_seed(seed)
    np.random.seed(seed)  # mmpose's transforms draw from it
    config = Config.fromfile(CONFIG)
    model = init_model(config, None, device="cpu")
    model.init_weights()
    start(model.head)
    model.train().to(memory_format=torch.channels_last)
    init_default_scope("mmpose")
    pipeline = Compose(config.train_pipeline)
    data = DemoFrames(Manifest(manifest_path, "train"), model.dataset_meta)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    losses: list[float] = []
    for _ in (bar := tqdm(range(steps), "train", mininterval=10.0)):
        chosen = np.random.randint(len(data.bgr), size=batch_size)
        batch = pseudo_collate([pipeline(data.sample(int(index))) for index in chosen])
        batch = model.data_preprocessor(batch, training=True)
        pictures = batch["inputs"].contiguous(memory_format=torch.channels_last)
        loss, _ = model.parse_losses(model.loss(pictures, batch["data_samples"]))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{np.mean(losses[-100:]):.3f}", refresh=False)
    # What mmpose's own runner keeps in a checkpoint, numpy arrays in `dataset_meta` included.
    weights = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    meta = {"dataset_meta": model.dataset_meta, "mmengine_version": mmengine.__version__, "seed": seed}
    draft = CHECKPOINT.with_name(CHECKPOINT.name + ".tmp")
    torch.save({"meta": meta, "state_dict": weights}, draft)
    draft.replace(CHECKPOINT)
    return losses


def evaluate(settings: DetectorSettings, manifest_path: Path, split: Split) -> PCKCounts:
    """PCK of a detector on all clips of a split."""
    manifest, detector = Manifest(manifest_path, split), load_detector(settings)
    return total(count_correct(detector.detect(_read(manifest, i)), _poses(manifest, i)) for i in range(len(manifest)))


def _read(manifest: Manifest, index: int) -> np.ndarray:
    record = manifest[index]
    return read_frames(manifest.resolve(record.video), record.in_video(np.arange(record.num_frames)))


def _poses(manifest: Manifest, index: int) -> Any:
    return load_keypoints(manifest.resolve(manifest[index].keypoints))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.INFO)  # mmengine tells how each weight was drawn
    torch.set_num_threads(1)
    started = time.process_time()
    recipe = {"steps": options.steps, "batch_size": options.batch_size, "lr": options.lr, "seed": options.seed}
    losses = train(options.manifest, **recipe)
    seconds = time.process_time() - started
    person = PersonSettings(kind="whole_frame")
    settings = DetectorSettings(kind="mmpose", config=str(CONFIG), checkpoint=str(CHECKPOINT), person=person)
    counts = evaluate(settings, options.manifest, "val")
    every = max(1, len(losses) // 100)
    facts = {
        **recipe,
        "cpu_minutes": round(seconds / 60, 1),
        "data": Manifest(options.manifest, "train").header,
        "data_digest": "sha256:" + hashlib.sha256(options.manifest.read_bytes()).hexdigest(),
        "weights_digest": "sha256:" + hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest(),
        "val_joints": int(counts.visible.sum()),
        "val_pck": {str(threshold): counts.accuracy(threshold) for threshold in counts.thresholds},
        "val_mean_error_px": counts.mean_error_px,
        "loss": [[i + every, round(float(np.mean(losses[i : i + every])), 4)] for i in range(0, len(losses), every)],
    }
    (HERE / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(facts["val_pck"], facts["val_mean_error_px"])


if __name__ == "__main__":
    main()
