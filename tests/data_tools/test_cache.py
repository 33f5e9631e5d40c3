"""Building a latent cache: once for each clip, whatever happens on the way."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import data_tools.cache as cache_module
from data_tools.cache import build_cache
from data_tools.cache_encoding import _pack
from data_tools.cache_parts import PartWriter, clips_of, read_parts
from lisa_video.config.load import parse_config
from lisa_video.data.cache import ClipCache
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.manifest import iter_records, write_manifest
from lisa_video.errors import UserError


@pytest.fixture
def project(tiny_settings, tiny_manifest, tmp_path):
    """`project(clips=4)`: a config whose data set is a copy of the first training clips; `data.X` by keyword."""
    folder = tmp_path / "data"
    shutil.copytree(tiny_manifest.parent, folder)
    records = [record for record in iter_records(tiny_manifest) if record.split == "train"]

    def configure(clips=4, **data):
        write_manifest(folder / "manifest.jsonl", records[:clips])
        settings = {**tiny_settings["data"], "manifest": str(folder / "manifest.jsonl"), **data}
        return parse_config({"run_dir": "unused", **tiny_settings, "data": settings}, "tests")

    return configure


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def served(config, folder) -> list[str]:
    """Names of the clips that training reads from the cache, one epoch."""
    dataset = PoseClipDataset.for_training(config.data.model_copy(update={"cache": str(folder)}), 0)
    return sorted(dataset._load(index, 0, ()).clip_id for index in range(len(dataset)))


def test_more_clips_cost_what_is_new(project, tmp_path):
    out = tmp_path / "cache"
    first = build_cache(project(clips=3), out)
    assert (first.made, first.there, first.broken, first.left_out) == (3, 0, {}, 0)
    assert first.num_bytes == sum(len(value) for value in content(out).values())
    config, before = project(clips=5), content(out)
    second = build_cache(config, out)
    assert (second.made, second.there) == (2, 3)
    shards = [name for name in before if name.endswith(".bin")]
    assert shards and all(content(out)[name] == before[name] for name in shards)
    assert len(served(config, out)) == 5


def test_a_second_build_changes_nothing(project, tmp_path):
    out = tmp_path / "cache"
    build_cache(project(), out)
    before = content(out)
    assert build_cache(project(), out).made == 0 and content(out) == before


def test_fewer_clips_need_no_work(project, tmp_path):
    out = tmp_path / "cache"
    build_cache(project(clips=4), out)
    config = project(clips=2)
    assert build_cache(config, out).made == 0 and len(served(config, out)) == 2


def test_several_shards_and_processes_give_the_same_clips(project, tmp_path):
    config = project(clips=5)
    build_cache(config, tmp_path / "one", dtype="float32")
    build_cache(config, tmp_path / "many", dtype="float32", num_processes=2, shard_bytes=1)
    assert len(list((tmp_path / "many/parts").iterdir())) == 5

    def clips(folder):
        dataset = PoseClipDataset.for_training(config.data.model_copy(update={"cache": str(folder)}), 0)
        return [dataset._load(index, index, ()) for index in range(5)]

    for clip, other in zip(clips(tmp_path / "one"), clips(tmp_path / "many"), strict=True):
        assert clip.clip_id == other.clip_id and np.array_equal(clip.frames, other.frames)
        assert np.allclose(clip.latents, other.latents, atol=2e-6)


def test_a_kill_loses_the_part_in_the_making_only(project, tmp_path, monkeypatch):
    config, out, written = project(clips=4), tmp_path / "cache", []
    close = PartWriter.close

    def killed(self):
        written.append(self.name)
        if len(written) == 3:
            self.add_clips = shutil.copy(__file__, self.out / "parts" / f"{self.name}.json.tmp")  # half of its file
            raise KeyboardInterrupt
        close(self)

    monkeypatch.setattr(PartWriter, "close", killed)
    with pytest.raises(KeyboardInterrupt):
        build_cache(config, out, shard_bytes=1)
    assert not (out / "cache.json").exists()
    monkeypatch.setattr(PartWriter, "close", close)
    (out / "bytes" / "orphan.bin").write_bytes(b"left by a kill before the part was named")
    report = build_cache(config, out)
    assert (report.made, report.there) == (2, 2)
    assert not list(out.rglob("*.tmp")) and not (out / "bytes/orphan.bin").exists()
    assert len(served(config, out)) == 4


def test_new_poses_make_a_clip_anew(project, tmp_path):
    config, out = project(clips=3), tmp_path / "cache"
    build_cache(config, out)
    records = list(iter_records(config.data.manifest))
    poses = [Path(config.data.manifest).parent / record.keypoints for record in records]
    poses[0].write_bytes(poses[1].read_bytes())
    report = build_cache(config, out)
    assert (report.made, report.there) == (1, 2)
    dataset = PoseClipDataset.for_training(config.data.model_copy(update={"cache": str(out)}), 0)
    one, other = (dataset.source.read(i, records[i], np.arange(4), _geometry(records[i])).keypoints for i in (0, 1))
    assert np.array_equal(one.xy, other.xy, equal_nan=True)


def _geometry(record):
    from lisa_video.data.geometry import Geometry

    return Geometry((record.height, record.width), (32, 32), mirror=False)


def test_a_broken_clip_is_told_skipped_in_training_and_tried_again(project, tmp_path):
    config, out = project(clips=3), tmp_path / "cache"
    records = list(iter_records(config.data.manifest))
    video = Path(config.data.manifest).parent / records[1].video
    whole = video.read_bytes()
    video.write_bytes(b"")
    report = build_cache(config, out)
    assert report.made == 2 and list(report.broken) == [records[1].clip_id]
    dataset = PoseClipDataset.for_training(config.data.model_copy(update={"cache": str(out)}), 0)
    with pytest.raises(UserError, match=r"could not be cached: .*not a readable video"):
        dataset._load(1, 0, ())
    assert dataset._load(2, 0, ()).latents is not None
    video.write_bytes(whole)
    report = build_cache(config, out)
    assert (report.made, report.there, report.broken) == (1, 2, {}) and len(served(config, out)) == 3


@pytest.mark.parametrize(
    ("changes", "dtype", "told"),
    [
        ({}, "float32", "dtype = float16, now it is float32"),
        ({"flip_probability": 0.0}, "float16", "mirrored = True, now it is False"),
        ({"num_frames": 2}, "float16", "span = 4, now it is 2"),
    ],
)
def test_a_cache_of_other_settings_is_left_alone(project, tmp_path, changes, dtype, told):
    out = tmp_path / "cache"
    build_cache(project(clips=1), out)
    before = content(out)
    with pytest.raises(UserError, match=rf"built with {told}.*Remedy: build it in a new folder"):
        build_cache(project(clips=2, **changes), out, dtype=dtype)
    assert content(out) == before


def test_short_clips_and_clips_of_no_bucket_are_left_out(project, tmp_path):
    assert build_cache(project(clips=3, num_frames=9), tmp_path / "short").left_out == 3
    buckets = project(clips=3, buckets=((64, 64, 4), (32, 32, 4)))
    assert build_cache(buckets, tmp_path / "buckets").left_out == 0  # they need not grow
    assert (tmp_path / "buckets/frames-32x32").is_dir() and not (tmp_path / "buckets/frames-64x64").exists()


def test_unmirrored_runs_cost_half(project, tmp_path):
    sizes = {}
    for flip in (0.0, 0.5):
        build_cache(project(clips=2, flip_probability=flip), tmp_path / str(flip))
        sizes[flip] = sum(path.stat().st_size for path in (tmp_path / str(flip) / "frames-32x32").glob("*.bin"))
    latents = 2 * 8 * 4 * 8 * 8 * 2  # clips, frames, channels, height, width, bytes
    assert sizes[0.5] - sizes[0.0] == pytest.approx(latents, rel=0.3)


def test_a_full_disk_is_told_before_anything_is_written(project, tmp_path, monkeypatch, capsys):
    config = project(clips=2)
    build_cache(config, tmp_path / "cache")
    need = float(capsys.readouterr().out.split("about ")[1].split(" GiB")[0])
    written = sum(len(value) for value in content(tmp_path / "cache").values()) / 2**30
    assert need == pytest.approx(written, abs=0.01)
    monkeypatch.setattr(cache_module, "_SPARE_BYTES", 2**60)
    with pytest.raises(UserError, match=r"GiB are needed, .* are free.*Remedy: free space"):
        build_cache(config, tmp_path / "other")
    assert not list((tmp_path / "other").rglob("*.bin"))


def test_estimates_are_near_the_truth(project, tmp_path, monkeypatch):
    estimates = []
    monkeypatch.setattr(cache_module, "_check_disk", lambda out, needed: estimates.append(needed))
    report = build_cache(project(clips=5), tmp_path / "cache")
    assert estimates[0] == pytest.approx(report.num_bytes, rel=0.25)


def test_two_builds_in_one_folder_are_refused(project, tmp_path):
    out = tmp_path / "cache"
    out.mkdir()
    with cache_module._locked(out), pytest.raises(UserError, match="another build is running here"):
        build_cache(project(clips=1), out)


def test_the_shards_are_litdatas_own(project, tmp_path):
    """Anybody's litdata reads them, without this package."""
    from litdata import StreamingDataset, TemporalArrayLoader

    build_cache(project(clips=3), tmp_path / "cache", shard_bytes=1)
    dataset = StreamingDataset(str(tmp_path / "cache/frames-32x32"), item_loader=TemporalArrayLoader())
    assert len(dataset) == 3 and dataset[0]["latents"].shape == (8, 4, 8, 8)


def test_every_part_names_its_clips(project, tmp_path):
    build_cache(project(clips=2), tmp_path / "cache", shard_bytes=1)
    parts = read_parts(tmp_path / "cache")
    assert len(parts) == 2 and len({clip["key"] for clip in clips_of(parts)}) == 2
    assert list(ClipCache(str(tmp_path / "cache")).facts.parts) == list(parts)
    assert all(json.dumps(part) for part in parts.values())


def test_pictures_are_lossless():
    frame = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    assert np.array_equal(cv2.imdecode(np.frombuffer(_pack(frame), np.uint8), cv2.IMREAD_COLOR_RGB), frame)
