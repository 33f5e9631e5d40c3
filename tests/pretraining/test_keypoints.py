"""Training of the keypoint network: joints follow the picture, the loss has its known values, and it learns."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lisa_video.data.manifest import ClipRecord, write_manifest
from lisa_video.data.video_io import write_video
from lisa_video.pose.detectors.keypoint_net import KeypointNetDetector
from lisa_video.pose.keypoint_net import KeypointMaps, heatmap_target
from lisa_video.pose.keypoints import Keypoints, save_keypoints
from lisa_video.pose.skeleton import COCO17
from lisa_video.pretraining.keypoint_augmentation import PosedFrames, augment, cover, mirror, move
from lisa_video.pretraining.keypoints import HEAT_SIGMA_PX, HIDDEN_WEIGHT, keypoint_loss, train_keypoint_net

FLIP = torch.from_numpy(COCO17.flip_index)
LEFT_WRIST, RIGHT_WRIST = COCO17.joints.index("left_wrist"), COCO17.joints.index("right_wrist")


def spots(count: int, height: int = 48, width: int = 64) -> PosedFrames:
    """Black pictures with a white spot on the left wrist; all other joints unknown."""
    generator = np.random.default_rng(0)
    centres = generator.uniform((20, 15), (44, 33), size=(count, 2))
    y, x = np.mgrid[:height, :width] + 0.5
    bright = np.exp(-((x - centres[:, 0, None, None]) ** 2 + (y - centres[:, 1, None, None]) ** 2) / 8)
    frames = torch.from_numpy(bright * 2 - 1).float()[:, None].expand(-1, 3, -1, -1)
    xy, score = torch.full((count, 17, 2), torch.nan), torch.zeros(count, 17)
    xy[:, LEFT_WRIST], score[:, LEFT_WRIST] = torch.from_numpy(centres).float(), 1.0
    return PosedFrames(frames, xy, score)


def brightest(frames: torch.Tensor) -> torch.Tensor:
    """Centre of gravity of the light, pixels (x, y)."""
    light = (frames.mean(dim=1) + 1).clamp(min=0.2) - 0.2
    total = light.sum(dim=(1, 2))
    x = (light.sum(dim=1) * (torch.arange(light.shape[2]) + 0.5)).sum(dim=1) / total
    y = (light.sum(dim=2) * (torch.arange(light.shape[1]) + 0.5)).sum(dim=1) / total
    return torch.stack([x, y], dim=-1)


def test_moved_joints_stay_on_the_moved_picture() -> None:
    """Turned, scaled and shifted, on pictures that are not square."""
    batch = spots(64)
    moved = move(batch, torch.Generator().manual_seed(0))
    shift = (moved.xy - batch.xy)[:, LEFT_WRIST].norm(dim=1)
    assert shift.max() > 4, "the test must see some movement"
    torch.testing.assert_close(moved.xy[:, LEFT_WRIST], brightest(moved.frames), atol=0.35, rtol=0)


def test_joints_that_leave_the_picture_are_unknown() -> None:
    """A joint in the corner is pushed out in some pictures; its score then is 0, else unchanged."""
    batch = spots(64)
    batch.xy[:, LEFT_WRIST] = torch.tensor([1.0, 1.0])
    moved = move(batch, torch.Generator().manual_seed(0))
    outside = (moved.xy[:, LEFT_WRIST] < 0).any(dim=1)
    assert 5 < outside.sum() < 60
    assert torch.equal(moved.score[:, LEFT_WRIST] == 0, outside)


def test_mirrored_joints_change_side_and_name() -> None:
    """The spot is on the left wrist, or, mirrored, on the right one."""
    batch = spots(40)
    mirrored = mirror(batch, FLIP, torch.Generator().manual_seed(0))
    is_right = mirrored.score[:, RIGHT_WRIST] == 1
    assert 10 < is_right.sum() < 30 and torch.equal(mirrored.score[:, LEFT_WRIST] == 0, is_right)
    wrist = torch.where(is_right[:, None], mirrored.xy[:, RIGHT_WRIST], mirrored.xy[:, LEFT_WRIST])
    torch.testing.assert_close(wrist, brightest(mirrored.frames), atol=0.1, rtol=0)
    torch.testing.assert_close(wrist[is_right, 0], 64 - batch.xy[is_right, LEFT_WRIST, 0])


def test_covered_joints_count_as_hidden() -> None:
    """Where the picture at the joint changed, the score is at most 0.4; elsewhere it is 1."""
    batch = spots(200)
    covered = cover(batch, torch.Generator().manual_seed(1))
    x, y = batch.xy[:, LEFT_WRIST].long().unbind(dim=1)
    rows = torch.arange(200)
    changed = (covered.frames[rows, :, y, x] != batch.frames[rows, :, y, x]).any(dim=1)
    assert 3 < changed.sum() < 60
    expected = torch.where(changed, 0.4, 1.0)
    torch.testing.assert_close(covered.score[:, LEFT_WRIST], expected)


def test_augmented_batches_are_in_range_and_repeatable() -> None:
    """The same generator gives the same batch."""
    first, again = (augment(spots(8), FLIP, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.frames, again.frames)
    assert first.frames.abs().max() <= 1.0 and first.frames.isfinite().all()


def test_loss_of_perfect_and_of_ignorant_maps() -> None:
    """Perfect: 0. Uniform heatmap: log(cells) less the entropy of a normal density; sure of nothing: log 2."""
    xy, score = torch.full((1, 17, 2), 32.0), torch.ones(1, 17)
    batch = PosedFrames(torch.zeros(1, 3, 64, 64), xy, score)
    perfect = heatmap_target(xy, (64, 64), HEAT_SIGMA_PX).log().clamp(min=-90)
    assert keypoint_loss(KeypointMaps(perfect, torch.full((1, 17), 30.0)), batch).item() == pytest.approx(0, abs=1e-5)
    ignorant = keypoint_loss(KeypointMaps(torch.zeros(1, 17, 32, 32), torch.zeros(1, 17)), batch).item()
    entropy = np.log(2 * np.pi * np.e * (HEAT_SIGMA_PX / 2) ** 2)  # of two dimensions, in cells of 2 pixels
    assert ignorant == pytest.approx(np.log(32 * 32) - entropy + np.log(2), abs=0.02)


def test_hidden_joints_weigh_less_and_unknown_ones_nothing() -> None:
    """One visible joint read well, one hidden read badly: the mean of 0 and the bad one by their weights."""
    xy, score = torch.full((1, 17, 2), torch.nan), torch.zeros(1, 17)
    xy[0, :2], score[0, 0], score[0, 1] = 32.0, 1.0, 0.4
    batch = PosedFrames(torch.zeros(1, 3, 64, 64), xy, score)
    heat = torch.zeros(1, 17, 32, 32)
    heat[0, 0] = heatmap_target(xy[:, :1], (64, 64), HEAT_SIGMA_PX).log().clamp(min=-90)[0, 0]
    sure = torch.where(score >= 0.5, 30.0, -30.0)
    bad = np.log(32 * 32) - np.log(2 * np.pi * np.e * (HEAT_SIGMA_PX / 2) ** 2)
    expected = HIDDEN_WEIGHT * bad / (1 + HIDDEN_WEIGHT)
    assert keypoint_loss(KeypointMaps(heat, sure), batch).item() == pytest.approx(expected, abs=0.02)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Six clips of four frames of 32 pixels: a bright square on dark ground, all joints inside it, no two alike."""
    records = []
    for number in range(6):
        x, y = 8 + 3 * number, 22 - 2 * number
        frames = np.full((4, 32, 32, 3), 30, np.uint8)
        frames[:, y - 5 : y + 5, x - 4 : x + 4] = (250, 80, 80)
        write_video(tmp_path / f"{number}.mp4", frames, 8.0)
        place = np.linspace((x - 3, y - 4), (x + 3, y + 4), 17)
        xy = np.broadcast_to(place, (4, 1, 17, 2)).astype(np.float32)
        save_keypoints(
            tmp_path / f"{number}.npz", Keypoints(xy, np.ones((4, 1, 17), np.float32), np.zeros(1, np.int64))
        )
        records.append(
            ClipRecord(
                clip_id=f"clip-{number}", video=f"{number}.mp4", start_frame=0, num_frames=4, fps=8.0, width=32,
                height=32, keypoints=f"{number}.npz", split="val" if number == 5 else "train", source=f"s{number}",
                source_digest="sha256:" + "0" * 64,
            )
        )  # fmt: skip
    write_manifest(tmp_path / "manifest.jsonl", records)
    return tmp_path / "manifest.jsonl"


def test_training_learns_writes_its_facts_and_repeats(manifest: Path, tmp_path: Path) -> None:
    """A few steps on a toy: the loss falls; two runs agree; the digest is that of the manifest's bytes."""
    settings = {"steps": 25, "batch_size": 8, "lr": 3e-3, "seed": 1, "size": 32, "width": 8, "depth": 1}
    facts = train_keypoint_net(manifest, tmp_path / "a", **settings, max_clips=4, frames_per_clip=2)
    assert json.loads((tmp_path / "a" / "training.json").read_text()) == facts
    assert facts["train_frames"] == 8 and facts["val_joints"] == 4 * 17
    assert facts["data_digest"] == "sha256:" + hashlib.sha256(manifest.read_bytes()).hexdigest()
    losses = [loss for _, loss in facts["loss"]]
    assert len(losses) == 25 and facts["loss"][-1][0] == 25
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    again = train_keypoint_net(manifest, tmp_path / "b", **settings, max_clips=4, frames_per_clip=2)
    assert again["weights_digest"] == facts["weights_digest"]
    assert KeypointNetDetector.from_pretrained(tmp_path / "a").digest == facts["weights_digest"]
