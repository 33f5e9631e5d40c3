"""Training from a latent cache: the losses of training from videos, exact resume, the same clips on any ranks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from data_tools.cache import build_cache
from lisa_video.config.load import parse_config
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.manifest import Manifest, iter_records, write_manifest
from lisa_video.data.video_io import read_frames, write_video
from lisa_video.errors import UserError
from lisa_video.models.svd.codec import SVDCodec
from lisa_video.training.run_dir import check_same_data, data_digests
from lisa_video.training.trainer import Trainer

SMOOTH = "optimizer.eps=1e-3"  # as in `plain`


@pytest.fixture(scope="module")
def half_cache(tiny_settings, tmp_path_factory) -> Path:
    """The tiny cache in float16."""
    folder = tmp_path_factory.mktemp("half") / "cache"
    build_cache(parse_config({"run_dir": "unused", **tiny_settings}, "cache"), folder, dtype="float16")
    return folder


def test_float32_cache_and_videos_give_the_same_losses(train, plain, tiny_cache, monkeypatch):
    encoded = []
    encode = SVDCodec.encode_video
    monkeypatch.setattr(SVDCodec, "encode_video", lambda codec, frames: encoded.append(1) or encode(codec, frames))
    cached = train("cached", SMOOTH, f"data.cache={tiny_cache}")
    assert not encoded and len(cached.losses) == 6  # it was the cache
    assert cached.losses == pytest.approx(plain.losses, abs=1e-6)
    for name, value in plain.exported.items():
        torch.testing.assert_close(cached.exported[name], value, rtol=0, atol=1e-5)


def test_float16_cache_stays_near(train, plain, half_cache):
    cached = train("half", SMOOTH, f"data.cache={half_cache}")
    assert cached.losses == pytest.approx(plain.losses, rel=1e-3)
    assert cached.losses != plain.losses


def test_noise_of_the_reference_is_fresh_although_its_frames_are_cached(train, tiny_cache):
    losses = [
        train(f"noise {strength}", "training.max_steps=1", f"data.cache={tiny_cache}",
              f"conditioning.noise_aug_strength={strength}").losses
        for strength in (0.0, 0.5)
    ]  # fmt: skip
    assert losses[0] != losses[1]


def test_three_and_three_steps_from_the_cache_equal_six(train, same_bits, tiny_cache):
    six = ("training.max_steps=6", f"data.cache={tiny_cache}", "training.zero_stage=0")
    whole = train("whole", *six)
    train("parts", *six, "training.max_steps=3")
    same_bits(train("parts", *six), whole)


def test_buckets_train_and_resume(train, same_bits, tiny_settings, tmp_path):
    """Two shapes and two lengths, from a cache: 2 + 2 steps equal 4, and the losses are those of the videos."""
    buckets = "data.buckets=[[32,32,4],[32,48,3]]"
    config = parse_config({"run_dir": "unused", **tiny_settings}, "cache")
    shapes = config.data.model_copy(update={"buckets": ((32, 32, 4), (32, 48, 3)), "max_upscale": 2.0})
    manifest = tmp_path / "manifest.jsonl"
    with_wide_clips(Path(shapes.manifest), manifest, 3)  # the demo clips are square
    shapes = shapes.model_copy(update={"manifest": str(manifest)})
    assert [len(members) for members in PoseClipDataset.for_training(shapes, 0).members] == [6, 3]
    build_cache(config.model_copy(update={"data": shapes}), tmp_path / "cache", dtype="float32")
    settings = (SMOOTH, buckets, "data.max_upscale=2.0", f"data.manifest={manifest}", "training.max_steps=4")
    cache = f"data.cache={tmp_path / 'cache'}"
    whole = train("whole", *settings, cache)
    train("parts", *settings, cache, "training.max_steps=2")
    same_bits(train("parts", *settings, cache), whole)
    # The codec's batches are of other sizes here, and convolutions round by the size of the batch.
    assert train("videos", *settings).losses == pytest.approx(whole.losses, abs=1e-5)


def with_wide_clips(source: Path, target: Path, count: int) -> None:
    """A copy of a manifest, in which the first training clips are of wide videos."""
    resolve = Manifest(source, "train").resolve
    records = []
    for record in iter_records(source):
        changes = {"video": str(resolve(record.video)), "keypoints": str(resolve(record.keypoints))}
        if record.split == "train" and count > 0:
            count -= 1
            frames = read_frames(resolve(record.video), record.in_video(np.arange(record.num_frames)))
            video = target.parent / f"{record.clip_id}.mp4"
            write_video(video, np.concatenate([frames, frames[:, :, :16]], axis=2), record.fps)
            changes |= {"video": str(video), "width": 48}
        records.append(record.model_copy(update=changes))
    write_manifest(target, records)


def test_a_changed_manifest_stops_a_resume(train, tiny_settings, tiny_manifest, tmp_path):
    copy = tmp_path / "data" / "manifest.jsonl"
    copy.parent.mkdir()
    for entry in tiny_manifest.parent.iterdir():
        (copy.parent / entry.name).symlink_to(entry) if entry.is_dir() else None
    copy.write_bytes(tiny_manifest.read_bytes())
    train("run", "training.max_steps=1", f"data.manifest={copy}")
    train("run", "training.max_steps=2", f"data.manifest={copy}")
    lines = copy.read_bytes().splitlines(keepends=True)
    copy.write_bytes(b"".join([*lines[:1], *lines[2:]]))
    with pytest.raises(UserError, match=r"manifest\.jsonl: this manifest is not the one .*Remedy: put the manifest of"):
        train("run", "training.max_steps=3", f"data.manifest={copy}")


def test_a_cache_of_another_kind_stops_a_resume(tiny_settings, tiny_cache, half_cache):
    data = parse_config({"run_dir": "unused", **tiny_settings}, "cache").data
    first, other = (data_digests(data.model_copy(update={"cache": str(c)})) for c in (tiny_cache, half_cache))
    check_same_data(first, first, data)
    with pytest.raises(UserError, match="this cache is not the one"):
        check_same_data(first, other, data)


def test_a_cache_of_other_weights_is_refused_before_training(tiny_config, tiny_cache, tmp_path):
    copy = shutil.copytree(tiny_cache, tmp_path / "other")
    facts = json.loads((copy / "cache.json").read_text())
    (copy / "cache.json").write_text(json.dumps({**facts, "codec": "sha256:" + "0" * 64}))
    with pytest.raises(UserError, match="encoded by other weights"):
        Trainer(tiny_config(f"data.cache={copy}"))
    assert not (tmp_path / "run").exists()
