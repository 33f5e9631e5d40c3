"""Everything that can be checked before anything expensive starts; `--dry-run` prints it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lisa_video.config.load import dump_config
from lisa_video.config.schema import RunConfig
from lisa_video.data.buckets import plan_buckets
from lisa_video.data.clips import PoseClipDataset, check_manifest_fits
from lisa_video.data.manifest import Manifest, Split
from lisa_video.errors import UserError
from lisa_video.models.build import backbone_module, build_backbone, build_denoiser, check_size, parameter_counts
from lisa_video.pose.detectors.load import detector_settings
from lisa_video.training.run_dir import check_unchanged

_MIN_FREE_BYTES = 512 * 2**20
_SPLITS: tuple[Split, ...] = ("train", "val")


def check_run(config: RunConfig) -> None:
    """Cheap checks: settings of an earlier start, data, weights' layout, preview detector, disk.

    Raises:
        UserError: the first thing that is wrong.
    """
    check_unchanged(Path(config.run_dir), config)
    data = config.data
    PoseClipDataset.for_training(data, config.seed).check()
    check_manifest_fits(Manifest(data.manifest, "val"), data.num_frames, data.frame_stride, data.size)
    backbone_module(config.backbone.name).check_layout(config.backbone.path)
    if config.preview.every and config.preview.detector is not None:
        detector_settings(config.preview.detector, key="preview.detector")
    check_disk(Path(config.run_dir))


def check_disk(folder: Path) -> None:
    """Refuse to start where nothing can be written, or on a full disk.

    Raises:
        UserError: a file is in the way, no permission, or less than half a GiB is free.
    """
    existing = next(path for path in [folder.absolute(), *folder.absolute().parents] if os.path.exists(path))
    if not existing.is_dir():
        raise UserError("not a folder", where=existing, remedy="choose another run_dir")
    if not os.access(existing, os.W_OK):
        raise UserError("cannot write here", where=existing, remedy="choose another run_dir")
    free = shutil.disk_usage(existing).free
    if free < _MIN_FREE_BYTES:
        raise UserError(
            f"{free / 2**20:.0f} MiB free on the disk, {_MIN_FREE_BYTES / 2**20:.0f} MiB needed for checkpoints",
            where=folder,
            remedy="free space, or choose another run_dir",
        )


def describe_run(config: RunConfig) -> str:
    """The resolved config as YAML, then sizes as comments: still a valid config file. Loads the weights.

    Raises:
        UserError: anything that would stop the run.
    """
    check_run(config)
    parts = build_backbone(config.backbone)
    check_size(config, parts)
    counts = parameter_counts(build_denoiser(config, parts))
    clips = {split: len(Manifest(config.data.manifest, split)) for split in _SPLITS}
    batch = config.training.micro_batch_size * config.training.gradient_accumulation
    notes = [
        f"clips: {clips['train']} to train on, {clips['val']} held out",
        f"clips a step: {batch} x number of processes",
        f"parameters: {counts['frozen']:,} frozen, {counts['branch']:,} side branch, "
        f"{counts['decoder']:,} LISA decoder ({counts['decoder_share']:.2%} of the branch)",
    ]
    if config.data.buckets is not None:
        notes.append(
            f"clips in buckets: {plan_buckets(Manifest(config.data.manifest, 'train'), config.data).describe()}"
        )
    return dump_config(config) + "".join(f"# {note}\n" for note in notes)
