"""Reading a latent cache: the same clips as from the videos, from a folder or an object store, or a clear refusal."""

import json
import pickle
import shutil
from itertools import islice

import fsspec
import numpy as np
import pytest
import torch

from lisa_video.config.load import parse_config
from lisa_video.data.batch import SampleKey
from lisa_video.data.cache import ClipCache
from lisa_video.data.cache_source import check_codec
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.loader import build_loader
from lisa_video.data.order import record_index
from lisa_video.errors import UserError


@pytest.fixture
def data(tiny_settings):
    """`data(cache, num_frames=3)`: the data section of the tiny settings, changed."""
    section = parse_config({"run_dir": "unused", **tiny_settings}, "cache").data
    return lambda cache=None, **changes: section.model_copy(update={"cache": str(cache) if cache else None, **changes})


def clips(section, count=20, seed=0):
    dataset = PoseClipDataset.for_training(section, seed)
    return [dataset[SampleKey(position, record_index(position, 9, seed))] for position in range(count)]


@pytest.fixture(scope="module", params=["folder", "file", "memory"])
def place(request, tiny_cache):
    """The tiny cache as a folder, as the URL of one, and behind a file system that is not on a disk."""
    fsspec.filesystem("memory").put(str(tiny_cache), "/bucket/cache", recursive=True)
    return {
        "folder": str(tiny_cache),
        "file": f"file://{tiny_cache}",
        "memory": "memory://bucket/cache",
    }[request.param]


@pytest.mark.parametrize("stride", [1, 2])
def test_clips_are_those_of_the_videos(data, place, tiny_parts, stride):
    changes = {"frame_stride": stride, "num_frames": 4}
    mirrored = set()
    for cached, decoded in zip(clips(data(place, **changes)), clips(data(**changes)), strict=True):
        assert (cached.clip_id, cached.position, cached.fps) == (decoded.clip_id, decoded.position, decoded.fps)
        assert torch.equal(cached.frames, decoded.frames[:1])
        assert torch.equal(cached.pose_maps, decoded.pose_maps)
        assert np.array_equal(cached.keypoints.xy, decoded.keypoints.xy, equal_nan=True)
        assert np.array_equal(cached.keypoints.score, decoded.keypoints.score)
        pixels = decoded.frames[None].float() / 127.5 - 1
        torch.testing.assert_close(cached.latents, tiny_parts.codec.encode_video(pixels)[0], rtol=0, atol=2e-6)
        embedding = tiny_parts.codec.embed_reference(pixels[:, 0])[0]
        torch.testing.assert_close(cached.embedding, embedding, rtol=0, atol=2e-6)
        as_stored = clips_as_stored(decoded, data(**changes))
        mirrored.add(not torch.equal(as_stored, decoded.frames))
    assert mirrored == {True, False}  # both kinds were among them


def clips_as_stored(clip, section):
    """The same frames without mirroring."""
    dataset = PoseClipDataset.for_training(section.model_copy(update={"flip_probability": 0.0}), 0)
    return dataset[SampleKey(clip.position, record_index(clip.position, 9, 0))].frames


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_loader_serves_it_from_any_position(data, tiny_cache, num_workers):
    def batches(count, start, workers):
        dataset = PoseClipDataset.for_training(data(tiny_cache), 0)
        loader = build_loader(dataset, num_clips=9, micro_batch_size=2, start_position=start, num_workers=workers)
        return list(islice(loader, count))

    for batch, other in zip(batches(4, 0, 0)[2:], batches(2, 4, num_workers), strict=True):
        assert batch.clip_ids == other.clip_ids and torch.equal(batch.positions, other.positions)
        assert torch.equal(batch.latents, other.latents) and torch.equal(batch.embedding, other.embedding)
        assert torch.equal(batch.pose_maps, other.pose_maps) and torch.equal(batch.frames, other.frames)


def test_a_sample_reads_its_own_bytes_and_no_more(data, tiny_cache, monkeypatch):
    fsspec.filesystem("memory").put(str(tiny_cache), "/bucket/counted", recursive=True)
    memory, read = type(fsspec.filesystem("memory")), []
    whole = memory.cat_file
    dataset = PoseClipDataset.for_training(data("memory://bucket/counted"), 0)
    dataset[SampleKey(0, record_index(0, 9, 0))]  # opens the shards

    def counted(self, path, start=None, end=None, **options):
        content = whole(self, path, start=start, end=end, **options)
        read.append(len(content))
        return content

    monkeypatch.setattr(memory, "cat_file", counted)
    clip = dataset[SampleKey(1, record_index(1, 9, 0))]
    latents = clip.latents.numel() * 4
    assert latents in read and len(read) == 4
    assert sum(read) - latents < clip.frames.numel() + 8192  # a picture, a row of embeddings, the keypoint file


def test_a_cache_travels_to_workers_unopened(tiny_cache):
    cache = ClipCache(str(tiny_cache))
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.facts == cache.facts and np.array_equal(copy.table["frames"], cache.table["frames"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_frames": 3}, r"reach over 3 frames, the cache keeps references for 4 or more\. Remedy: raise"),
        ({"size": (32, 64)}, r"9 of 9 clips are not in it\. Remedy: run `lisa-video data cache`"),
    ],
)
def test_settings_that_it_cannot_serve_are_named(data, tiny_cache, changes, told):
    with pytest.raises(UserError, match=told):
        PoseClipDataset.for_training(data(tiny_cache, **changes), 0)


def test_a_cache_without_mirrored_frames_serves_runs_that_do_not_mirror(data, tiny_cache, tmp_path):
    copy = shutil.copytree(tiny_cache, tmp_path / "plain")
    facts = json.loads((copy / "cache.json").read_text())
    (copy / "cache.json").write_text(json.dumps({**facts, "mirrored": False}))
    assert clips(data(copy, flip_probability=0.0), 1)
    with pytest.raises(UserError, match=r"no mirrored frames.*Remedy: set data\.flip_probability=0"):
        PoseClipDataset.for_training(data(copy), 0)


def test_another_manifest_is_refused_until_the_cache_has_seen_it(data, tiny_cache, tiny_manifest, tmp_path):
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_bytes(tiny_manifest.read_bytes() + b"\n"[:0])
    PoseClipDataset.for_training(data(tiny_cache, manifest=str(manifest)), 0)  # equal content, another place
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(
        UserError, match=r"built from another state of .*manifest\.jsonl\. Remedy: run `lisa-video data"
    ):
        PoseClipDataset.for_training(data(tiny_cache, manifest=str(manifest)), 0)


def test_other_weights_are_refused(tiny_cache):
    codec = ClipCache(str(tiny_cache)).facts.codec
    check_codec(str(tiny_cache), codec)
    with pytest.raises(UserError, match=r"encoded by other weights .*Remedy: use the backbone\.path"):
        check_codec(str(tiny_cache), "sha256:" + "0" * 64)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("{}/nothing", "no latent cache here"),
        ("memory://bucket/nothing", "no latent cache here"),
        ("nosuchprotocol://bucket", "cannot open the cache"),
    ],
)
def test_what_is_no_cache_is_refused(tmp_path, url, told):
    with pytest.raises(UserError, match=told):
        ClipCache(url.format(tmp_path))


def test_other_versions_are_refused(tmp_path):
    (tmp_path / "cache.json").write_text('{"version": 99}')
    with pytest.raises(UserError, match="not a latent cache of version 1"):
        ClipCache(str(tmp_path))


@pytest.mark.parametrize("damage", ["missing", "cut"])
@pytest.mark.parametrize("remote", [False, True])
def test_damaged_shards_are_named_and_their_clips_skipped(data, tiny_cache, tmp_path, damage, remote):
    copy = shutil.copytree(tiny_cache, tmp_path / f"{damage} {remote}")
    (shard,) = (copy / "frames-32x32").glob("*.bin")
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    url = str(copy)
    if remote:
        url = f"memory://bucket/{damage}"
        fsspec.filesystem("memory").put(str(copy), f"/bucket/{damage}", recursive=True)
    dataset = PoseClipDataset.for_training(data(url), 0)
    if damage == "missing" or not remote:
        with pytest.raises(UserError, match=r"no usable clip among 8 records .*cannot read"):
            dataset[SampleKey(0, record_index(0, 9, 0))]
    else:  # behind an object store only what lies after the cut is lost
        tried = [dataset[SampleKey(position, record_index(position, 9, 0))] for position in range(9)]
        skipped = [skip for clip in tried for skip in clip.skipped]
        assert 0 < len({skip.clip_id for skip in skipped}) < 9 and all("ends early" in skip.reason for skip in skipped)
