"""`lisa-video export`: a folder that stands alone, and the script of the documentation, run as it is printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from lisa_video.cli import main
from lisa_video.data.manifest import Manifest
from lisa_video.data.video_io import probe, read_frames
from lisa_video.errors import UserError
from lisa_video.export import export_branch
from lisa_video.models.weights import weights_file_digest
from lisa_video.pipeline import PoseVideoPipeline
from lisa_video.pose.keypoints import load_keypoints
from lisa_video.pose.render import draw_pose_maps

ROOT = Path(__file__).parents[1]
WEIGHTS = "diffusion_pytorch_model.safetensors"


def run_command(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["lisa-video", "export", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0


@pytest.fixture
def exported(tiny_run, tmp_path, monkeypatch) -> Path:
    run_command(monkeypatch, tiny_run, tmp_path / "my_branch")
    return tmp_path / "my_branch"


def test_the_folder_holds_the_published_weights_and_the_card_their_facts(exported, tiny_run):
    weights = load_file(exported / WEIGHTS)
    published = load_file(tiny_run / "weights/side_branch" / WEIGHTS)
    assert weights.keys() == published.keys() and all(torch.equal(weights[name], published[name]) for name in weights)
    card = (exported / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(card.split("---")[1])
    assert header["library_name"] == "diffusers" and header["license"] == "other"
    count = sum(value.numel() for value in weights.values())
    for fact in (
        "| 2 steps, ",
        "LISA on down_5, weight 0.2",
        f"{count:,} parameters",
        weights_file_digest(tiny_run / "weights"),
    ):
        assert fact in card
    assert "licence of Stability AI" in card and "ema_decay: 0.9\n" in card


def test_no_path_of_this_machine_is_published(exported, tiny_checkpoint):
    texts = [path.read_text(encoding="utf-8") for path in exported.iterdir() if path.suffix in (".md", ".json")]
    assert len(texts) == 4
    assert not any(str(tiny_checkpoint.parent) in text or "/tmp" in text for text in texts)


def test_the_script_of_the_documentation_makes_the_video_that_the_run_makes(
    exported, tiny_run, tiny_checkpoint, tiny_manifest
):
    folder = exported.parent
    (folder / "stabilityai").mkdir()
    (folder / "stabilityai/stable-video-diffusion-img2vid").symlink_to(tiny_checkpoint)
    record = (held_out := Manifest(tiny_manifest, "val"))[0]
    shutil.copy(held_out.resolve(record.keypoints), folder / "dance.npz")
    (first,) = read_frames(held_out.resolve(record.video), np.zeros(1, np.int64))
    Image.fromarray(first).save(folder / "person.png")
    text = (ROOT / "docs/using_a_branch.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    script += "np.save('frames.npy', video.numpy())\n"  # before compression
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    info = probe(folder / "dance.mp4")
    assert (info.num_frames, info.height, info.width, info.fps) == (4, 32, 32, 7.0)
    settings = ("sampling.num_steps=25", "sampling.guidance_last=3.0")
    poses = load_keypoints(held_out.resolve(record.keypoints)).frames(np.arange(4))
    maps = torch.from_numpy(draw_pose_maps(poses, (32, 32))).permute(0, 3, 1, 2)[None] / 255
    picture = torch.from_numpy(first).permute(2, 0, 1)[None] / 127.5 - 1
    pipeline = PoseVideoPipeline.from_run(tiny_run, overrides=settings)
    video = pipeline(picture, maps, torch.tensor([7.0]), seed=0, keys=["dance"])[0]
    difference = np.abs(video.numpy().astype(int) - np.load(folder / "frames.npy"))
    assert difference.max() <= 1 and difference.mean() < 0.01  # grey levels: rounding


def test_kept_weights_of_a_step_are_exported(tiny_run, tmp_path):
    kept = tiny_run / "weights_at/step-00000001"
    shutil.copytree(tiny_run / "weights", kept)
    branch = PoseVideoPipeline.from_run(tiny_run).denoiser.branch
    with torch.no_grad():
        branch.conv_in.bias.fill_(3.0)
    branch.save_pretrained(kept / "side_branch")
    export_branch(tiny_run, tmp_path / "out", step=1)
    assert load_file(tmp_path / "out" / WEIGHTS)["conv_in.bias"].eq(3.0).all()
    with pytest.raises(UserError, match=r"no weights of step 7. Remedy: choose a kept step \(1\)"):
        export_branch(tiny_run, tmp_path / "other", step=7)
    assert not (tmp_path / "other").exists()


def test_nothing_is_overwritten(exported, tiny_run):
    before = {path: path.stat().st_mtime_ns for path in exported.iterdir()}
    with pytest.raises(UserError, match="something here already"):
        export_branch(tiny_run, exported)
    assert {path: path.stat().st_mtime_ns for path in exported.iterdir()} == before


def test_a_run_without_weights_is_refused(tiny_run, tmp_path):
    shutil.rmtree(tiny_run / "weights")
    with pytest.raises(UserError, match="no trained weights"):
        export_branch(tiny_run, tmp_path / "out")
    with pytest.raises(UserError, match="not a run"):
        export_branch(tmp_path, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
