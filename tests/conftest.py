"""Tiny real parts for all rooms: an SVD checkpoint with random weights, a demo data set, a config, built models."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_tools.demo.generate import generate_demo_data
from lisa_video.config.load import load_config, parse_config
from lisa_video.config.schema import BackboneConfig, RunConfig
from lisa_video.distributed import prepare_environment
from lisa_video.models.backbone import BackboneParts
from lisa_video.models.build import build_backbone
from lisa_video.models.svd.tiny import random_checkpoint

ConfigFactory = Callable[..., RunConfig]
"""Overrides such as "training.max_steps=2" -> RunConfig."""


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """An SVD checkpoint in the hub's layout with random weights; the VAE goes down by 4. Read only."""
    folder = tmp_path_factory.mktemp("svd") / "checkpoint"
    random_checkpoint(folder, widths=(32, 32, 32, 32), vae_widths=(32, 32, 32))
    return folder


@pytest.fixture(scope="session")
def tiny_manifest(tmp_path_factory) -> Path:
    """Manifest of 9 train and 3 val clips of the demo generator: 8 frames of 32 x 32 px with keypoints. Read only."""
    return generate_demo_data(
        tmp_path_factory.mktemp("demo"), clips=12, size=32, num_frames=8, val_fraction=0.25, workers=1, progress=False
    )


@pytest.fixture(scope="session")
def tiny_settings(tiny_checkpoint, tiny_manifest) -> dict[str, Any]:
    """Settings of a few float32 steps on the CPU, LISA on, no previews; all but the run_dir."""
    return {
        "data": {"manifest": str(tiny_manifest), "num_frames": 4, "size": [32, 32], "num_workers": 0},
        "backbone": {"path": str(tiny_checkpoint)},
        "branch": {"pose_channels": [4, 8, 16], "pose_last_init": "default"},
        "lisa": {"layer": "down_5"},
        "optimizer": {"lr": 1e-3, "ema_decay": 0.9},
        "training": {
            "max_steps": 3,
            "micro_batch_size": 2,
            "precision": "fp32",
            "zero_stage": 1,
            "gradient_checkpointing": False,
            "log_every": 1,
            "checkpoint_every": 2,
        },
        "sampling": {"num_steps": 2, "guidance_first": 1.0, "guidance_last": 1.0},
        "preview": {"every": 0, "num_clips": 2, "num_steps": 2},
        "diagnostics": {"held_out_every": 0, "held_out_clips": 3, "held_out_levels": 2},
    }


@pytest.fixture
def tiny_config_file(tmp_path, tiny_settings) -> Path:
    """A config file of `tiny_settings`; its run goes to `tmp_path / "run"`."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({"run_dir": str(tmp_path / "run"), **tiny_settings}), encoding="utf-8")
    return path


@pytest.fixture
def tiny_config(tiny_config_file) -> ConfigFactory:
    """`tiny_config("training.max_steps=2", "lisa=null")` -> the config of `tiny_config_file` with these overrides."""
    return lambda *overrides: load_config(tiny_config_file, overrides)


@pytest.fixture(scope="session")
def tiny_parts(tiny_checkpoint) -> BackboneParts:
    """Frozen backbone and codec of `tiny_checkpoint`; shared by all tests, so they must not be changed."""
    return build_backbone(BackboneConfig(path=str(tiny_checkpoint)))


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory, tiny_settings) -> Path:
    """A latent cache in float32 of the clips of `tiny_settings`, mirrored too. Read only."""
    from data_tools.cache import build_cache  # imports litdata, which most rooms do not need

    folder = tmp_path_factory.mktemp("cache") / "cache"
    build_cache(parse_config({"run_dir": "unused", **tiny_settings}, "cache"), folder, dtype="float32")
    return folder


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory, tiny_settings) -> Path:
    """Folder of two finished runs of two steps, `baseline` and `lisa`. Only their `eval/` may change."""
    # Here, because these import deepspeed, which most rooms do not need.
    from lisa_video.training.engine import start_process_group
    from lisa_video.training.trainer import Trainer

    prepare_environment()
    start_process_group()
    folder = tmp_path_factory.mktemp("runs")
    for arm, difference in {"baseline": {"lisa": None}, "lisa": {}}.items():
        settings = {"run_dir": str(folder / arm), **tiny_settings, **difference}
        settings["training"] = {**settings["training"], "max_steps": 2}
        settings["diagnostics"] = {**settings["diagnostics"], "held_out_every": 2}
        Trainer(parse_config(settings, arm)).run()
    return folder


@pytest.fixture
def tiny_run(tiny_runs, tmp_path) -> Path:
    """A copy of the finished LISA run of `tiny_runs`, to write into."""
    ignored = shutil.ignore_patterns("eval")  # what other tests sampled
    return Path(shutil.copytree(tiny_runs / "lisa", tmp_path / "tiny run", ignore=ignored))
