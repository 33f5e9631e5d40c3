"""`lisa-video sample`: pictures, videos and keypoint files in, one mp4 out; and what it says to bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lisa_video.data.manifest import Manifest
from lisa_video.data.video_io import probe, read_frames, write_video
from lisa_video.errors import UserError
from lisa_video.pipeline import PoseVideoPipeline
from lisa_video.pose.detectors.keypoint_net import SHIPPED_KEYPOINT_NET
from lisa_video.pose.keypoints import Keypoints, load_keypoints, save_keypoints
from lisa_video.sample import sample_video

FRAMES, SIDE = 4, 32  # of `tiny_settings`


@pytest.fixture(scope="module")
def files(tiny_manifest, tmp_path_factory) -> dict[str, Path]:
    """A held-out clip and its poses, and its first frame as a picture."""
    manifest = Manifest(tiny_manifest, "val")
    video, keypoints = (manifest.resolve(name) for name in (manifest[0].video, manifest[0].keypoints))
    picture = tmp_path_factory.mktemp("picture") / "first.png"
    Image.fromarray(read_frames(video, np.zeros(1, np.int64))[0]).save(picture)
    return {"video": video, "keypoints": keypoints, "picture": picture}


@pytest.fixture
def sample(tiny_runs, tmp_path, files):
    """`sample(pose=...)` -> the written file; what is not given comes from `files`."""

    def run(name: str = "out.mp4", **changes) -> Path:
        settings = {
            "reference": files["picture"],
            "pose": files["keypoints"],
            "seed": 0,
            "detector": str(SHIPPED_KEYPOINT_NET),
            "keypoints_fps": 10.0,
        } | changes
        sample_video(tiny_runs / "lisa", tmp_path / name, **settings)
        return tmp_path / name

    return run


def frames(path: Path) -> np.ndarray:
    return read_frames(path, np.arange(probe(path).num_frames))


def test_a_picture_and_a_keypoint_file(sample):
    info = probe(sample("new folder/out.mp4"))
    assert (info.num_frames, info.height, info.width, info.fps) == (FRAMES, SIDE, SIDE, 10.0)


def test_a_video_and_a_video(sample, files):
    info = probe(sample(reference=files["video"], pose=files["video"]))
    assert (info.num_frames, info.height, info.width) == (FRAMES, SIDE, SIDE)
    assert info.fps == pytest.approx(12.0)  # of the driving video


def test_the_same_seed_gives_the_same_frames(sample):
    first, again, other = (frames(sample(f"{n}.mp4", seed=seed)) for n, seed in enumerate((1, 1, 2)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_settings_of_the_run_can_be_overridden(sample, monkeypatch):
    seen = []
    call = PoseVideoPipeline.__call__
    monkeypatch.setattr(
        PoseVideoPipeline, "__call__", lambda self, *a, **k: seen.append(self.sampling.num_steps) or call(self, *a, **k)
    )
    sample()
    sample(overrides=["sampling.num_steps=1"])
    assert seen == [2, 1]


@pytest.fixture(scope="module")
def loaded(tiny_runs) -> PoseVideoPipeline:
    return PoseVideoPipeline.from_run(tiny_runs / "lisa")


@pytest.fixture
def told(monkeypatch, loaded) -> dict[str, np.ndarray]:
    """What the pipeline is told; it is loaded once, and returns grey frames instead of sampling."""
    seen: dict = {}
    monkeypatch.setattr(PoseVideoPipeline, "from_run", lambda *_: loaded)

    def pretend(self, reference, pose_maps, fps, **_):
        seen.update(reference=reference[0].numpy(), pose_maps=pose_maps[0].numpy(), fps=float(fps))
        return (pose_maps.permute(0, 1, 3, 4, 2) * 0 + 127).byte()

    monkeypatch.setattr(PoseVideoPipeline, "__call__", pretend)
    return seen


def test_keypoints_are_in_pixels_of_the_reference(sample, told, files, tmp_path):
    """Twice the picture and twice the coordinates are the same sample; a picture as it is, is the reference itself."""
    sample()
    maps, reference = told["pose_maps"], told["reference"]
    picture = np.asarray(Image.open(files["picture"]))
    assert np.allclose(reference, picture.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)
    keypoints = load_keypoints(files["keypoints"])
    save_keypoints(tmp_path / "twice.npz", Keypoints(keypoints.xy * 2, keypoints.score, keypoints.track_id))
    Image.fromarray(picture.repeat(2, axis=0).repeat(2, axis=1)).save(tmp_path / "twice.png")
    sample(reference=tmp_path / "twice.png", pose=tmp_path / "twice.npz")
    assert np.array_equal(told["pose_maps"], maps) and maps.max() > 0.5
    assert np.allclose(told["reference"], reference, atol=0.01)


def test_the_stride_of_the_run_is_kept(sample, told, loaded, monkeypatch):
    sample()
    dense = told["pose_maps"]
    monkeypatch.setitem(loaded.contract, "frame_stride", 2)
    sample()
    assert told["fps"] == 5.0
    assert np.array_equal(told["pose_maps"][:2], dense[[0, 2]])


def test_a_turned_photograph_is_turned_back(sample, told, tmp_path):
    """Cameras write pictures as the sensor stands, with a note on how to turn them."""
    upright = np.zeros((64, 64, 3), np.uint8)
    upright[:16] = 255  # the top is white
    turned = Image.fromarray(np.rot90(upright))
    exif = turned.getexif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    turned.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    sample(reference=tmp_path / "photo.jpg")
    assert told["reference"][:, :6].min() > 0.9 and told["reference"][:, 10:].max() < -0.9


def test_a_pose_that_is_too_short(sample, told, files, tmp_path):
    save_keypoints(tmp_path / "short.npz", load_keypoints(files["keypoints"]).frames(slice(3)))
    with pytest.raises(UserError, match=r"short\.npz: 3 frames, but the run's clips need 4.*longer driving pose"):
        sample(pose=tmp_path / "short.npz")
    write_video(tmp_path / "short.mp4", np.zeros((3, 32, 32, 3), np.uint8), 12)
    with pytest.raises(UserError, match=r"short\.mp4: 3 frames"):
        sample(pose=tmp_path / "short.mp4")


@pytest.mark.parametrize("name", ["none.png", "none.mp4", "text.png", "cut.png", "text.mp4"])
def test_a_bad_reference_is_told_before_anything_is_loaded(sample, files, tmp_path, monkeypatch, name):
    monkeypatch.setattr(PoseVideoPipeline, "from_run", lambda *_: pytest.fail("loaded"))
    for text in ("text.png", "text.mp4"):
        (tmp_path / text).write_text("not a picture", encoding="utf-8")
    (tmp_path / "cut.png").write_bytes(files["picture"].read_bytes()[:200])
    with pytest.raises(UserError, match=name):
        sample(reference=tmp_path / name)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("name", ["none.npz", "none.mp4", "text.npz"])
def test_a_bad_pose(sample, told, tmp_path, name):
    (tmp_path / "text.npz").write_text("not keypoints", encoding="utf-8")
    with pytest.raises(UserError, match=name):
        sample(pose=tmp_path / name)


@pytest.mark.parametrize("name", ["out", "out.gif", "folder.mp4"])
def test_a_bad_output_is_told_before_anything_is_loaded(sample, tmp_path, monkeypatch, name):
    (tmp_path / "folder.mp4").mkdir()
    monkeypatch.setattr(PoseVideoPipeline, "from_run", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UserError, match=r"ends in \.mp4"):
        sample(name)


def test_no_run(tmp_path, files):
    with pytest.raises(UserError, match="not a run: no config"):
        sample_video(
            tmp_path, tmp_path / "o.mp4", reference=files["picture"], pose=files["keypoints"], seed=0, detector="",
            keypoints_fps=12,
        )  # fmt: skip
