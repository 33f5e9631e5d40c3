"""The generator: deterministic, nested, resumable, split without overlap, and careful with what it is given."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from data_tools.demo import clip as clip_module
from data_tools.demo import generate as generate_module
from data_tools.demo.clip import encode_h264, make_clip, video_path
from data_tools.demo.contact_sheet import contact_sheet
from data_tools.demo.generate import MANIFEST_NAME, SETTINGS_NAME, _same_arithmetic, generate_demo_data
from data_tools.demo.plan import plan_clip, split_of
from lisa_video.data.manifest import iter_records, read_header
from lisa_video.errors import UserError
from lisa_video.pose.keypoints import load_keypoints

SMALL = {"size": 32, "num_frames": 3, "fps": 8.0, "val_fraction": 0.25, "progress": False, "workers": 0}


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    generate_demo_data(folder, clips=12, **SMALL)
    return folder


def test_two_processes_write_the_same_bytes_as_one_whatever_kernels_the_cpu_prefers(tmp_path, monkeypatch):
    generate_demo_data(tmp_path / "a", clips=12, **{**SMALL, "workers": 2})
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Sandybridge")  # in its place without the pin: other bytes
    generate_demo_data(tmp_path / "b", clips=12, **{**SMALL, "workers": 1})
    assert _files(tmp_path / "a") == _files(tmp_path / "b")
    assert os.environ["OPENBLAS_CORETYPE"] == "Sandybridge"


def test_workers_have_none_of_numpys_kernels_for_avx512():
    """Says something on CPUs with AVX-512 only."""
    found = "import numpy; print(numpy.show_config(mode='dicts')['SIMD Extensions'].get('found', []))"
    with _same_arithmetic():
        names = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True).stdout
    assert "AVX512" not in names and "X86_V4" not in names and names.startswith("[")


def test_fewer_clips_are_a_prefix(data_set, tmp_path):
    generate_demo_data(tmp_path, clips=5, **SMALL)
    small, large = list(iter_records(tmp_path / MANIFEST_NAME)), list(iter_records(data_set / MANIFEST_NAME))
    assert small == large[:5]
    assert (tmp_path / small[4].keypoints).read_bytes() == (data_set / small[4].keypoints).read_bytes()


def test_another_seed_gives_other_clips(data_set, tmp_path):
    generate_demo_data(tmp_path, clips=2, seed=1, **SMALL)
    ours, others = list(iter_records(tmp_path / MANIFEST_NAME)), list(iter_records(data_set / MANIFEST_NAME))
    assert all(a.source_digest != b.source_digest for a, b in zip(ours, others[:2], strict=True))


def test_files_are_what_the_manifest_says(data_set):
    decord = pytest.importorskip("decord")
    header = read_header(data_set / MANIFEST_NAME)
    assert header["clips"] == 12 and header["size"] == 32 and "NSF EIA-0196217" in header["attribution"]
    records = list(iter_records(data_set / MANIFEST_NAME))
    assert len(records) == 12 and {record.split for record in records} == {"train", "val"}
    for record in records:
        video = decord.VideoReader(str(data_set / record.video))
        assert len(video) == record.num_frames == 3
        assert video.get_avg_fps() == pytest.approx(record.fps)
        assert video[0].shape == (record.height, record.width, 3) == (32, 32, 3)
        keypoints = load_keypoints(data_set / record.keypoints)
        assert keypoints.xy.shape == (3, 1, 17, 2) and np.isfinite(keypoints.xy).all()
        assert set(np.unique(keypoints.score)) <= {np.float32(0), np.float32(0.4), np.float32(1)}
    plan = plan_clip(0, 0, 3, 8.0, 0.25)
    assert records[0].source == plan.take and records[0].attributes["look"] == plan.look_name


def test_video_keeps_the_colours(tmp_path):
    import av

    frames, _ = make_clip(plan_clip(0, 3, 2, 12.0, 0.15), 64, 2, 12.0)
    encode_h264(tmp_path / "clip.mp4", frames, 12.0)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    error = decoded.astype(float) - frames
    assert np.abs(error).mean() < 4 and np.abs(error.mean(axis=(0, 1, 2))).max() < 2.5


def test_broken_off_run_goes_on_without_making_clips_again(data_set, tmp_path, monkeypatch):
    made = []

    def stop_after_four(plan, *arguments):
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(plan.index)
        return make_clip(plan, *arguments)

    monkeypatch.setattr(clip_module, "make_clip", stop_after_four)
    with pytest.raises(KeyboardInterrupt):
        generate_demo_data(tmp_path, clips=12, **SMALL)
    assert not (tmp_path / MANIFEST_NAME).exists()
    (tmp_path / video_path(1)).unlink()  # lost
    (tmp_path / video_path(2)).write_bytes(b"")  # cut off by a power failure
    made.clear()
    monkeypatch.setattr(clip_module, "make_clip", lambda plan, *rest: made.append(plan.index) or make_clip(plan, *rest))
    generate_demo_data(tmp_path, clips=12, **SMALL)
    assert made == [1, 2, *range(4, 12)]
    ours = _files(tmp_path)
    assert {name for name in ours if name.endswith(".tmp")} == set()
    assert ours == _files(data_set)


def test_complete_data_set_is_left_alone(data_set, monkeypatch, caplog):
    monkeypatch.setattr(generate_module, "_digests", lambda *_: pytest.fail("made clips again"))
    with caplog.at_level(logging.INFO):
        assert generate_demo_data(data_set, clips=12, **SMALL) == data_set / MANIFEST_NAME
    assert "nothing to do" in caplog.text


@pytest.mark.parametrize("change", [{"seed": 5}, {"size": 40}, {"num_frames": 4}, {"fps": 9.0}, {"clips": 13}])
def test_folder_of_another_data_set_is_refused(data_set, change):
    with pytest.raises(UserError, match=rf"{next(iter(change))} is .*Remedy"):
        generate_demo_data(data_set, **{"clips": 12, **SMALL, **change})


def test_unfinished_run_with_other_settings_is_refused(data_set, tmp_path):
    shutil.copy(data_set / SETTINGS_NAME, tmp_path)
    with pytest.raises(UserError, match="size is 32, not 48"):
        generate_demo_data(tmp_path, **{"clips": 2, **SMALL, "size": 48})


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with (
        generate_module._only_run(tmp_path / SETTINGS_NAME),
        pytest.raises(UserError, match="another run is filling this folder"),
    ):
        generate_demo_data(tmp_path, clips=1, **SMALL)


@pytest.mark.parametrize(
    "change",
    [
        {"clips": 0}, {"clips": 10**7}, {"seed": -1}, {"size": 60}, {"size": 24}, {"size": 520}, {"num_frames": 0},
        {"fps": 0.0}, {"fps": float("nan")}, {"val_fraction": 1.0}, {"val_fraction": -0.1}, {"workers": -1},
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, change):
    with pytest.raises(UserError, match=next(iter(change))):
        generate_demo_data(tmp_path / "out", **{"clips": 2, **SMALL, **change})
    assert not (tmp_path / "out").exists()


def test_too_little_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(generate_module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(UserError, match="free some disk"):
        generate_demo_data(tmp_path / "out", clips=2, **SMALL)


def test_disk_estimate_covers_what_is_written(data_set):
    written = sum(len(content) for content in _files(data_set).values())
    assert written < 12 * (0.25 * 32 * 32 * 3 + 12_000)


def test_splits_share_no_take_and_no_look():
    takes: dict[str, set[str]] = {"train": set(), "val": set()}
    looks: dict[str, set[str]] = {"train": set(), "val": set()}
    for index in range(3000):
        plan = plan_clip(0, index, 16, 12.0, 0.15)
        assert plan.split == split_of(index, 0.15)
        takes[plan.split].add(plan.take)
        looks[plan.split].add(plan.look_name)
    assert not takes["train"] & takes["val"] and not looks["train"] & looks["val"]
    assert len(takes["train"]) > 12 and len(takes["val"]) >= 4 and len(looks["val"]) > 200


def test_val_clips_are_spread_evenly():
    splits = [split_of(index, 0.15) for index in range(2000)]
    assert splits.count("val") == pytest.approx(300, abs=1)
    assert splits[:7].count("val") == 1
    assert {split_of(index, 0.0) for index in range(50)} == {"train"}


def test_number_of_tasks_under_way_does_not_grow_with_the_data_set(tmp_path, monkeypatch):
    """100,000 clips must need no more memory than 100: tasks are handed out only as results are used up."""
    submitted, peak, used = 0, 0, 0

    class InstantPool:
        def __init__(self, *_args, **_kwargs):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def shutdown(self, **_):
            pass

        def submit(self, _function, _out, _settings, start, stop):
            nonlocal submitted, peak
            submitted += stop - start
            peak = max(peak, submitted - used)
            future: Future[list[str]] = Future()
            future.set_result(["digest"] * (stop - start))
            return future

    monkeypatch.setattr(generate_module, "ProcessPoolExecutor", InstantPool)
    settings = generate_module._Settings(0, 32, 3, 8.0, 0.25)
    for _ in generate_module._digests(tmp_path, settings, 100_001, workers=2):
        used += 1
    assert used == submitted == 100_001
    assert peak <= 8 * 3 * 2 + 8


def test_dead_worker_is_reported_with_a_remedy(tmp_path, monkeypatch):
    from concurrent.futures.process import BrokenProcessPool

    def die(*_args, **_kwargs):
        raise BrokenProcessPool

    monkeypatch.setattr(generate_module.ProcessPoolExecutor, "submit", die)
    with pytest.raises(UserError, match="fewer workers"):
        generate_demo_data(tmp_path, clips=4, **{**SMALL, "workers": 2})


def test_contact_sheet_shows_the_clips(data_set, tmp_path):
    import cv2

    contact_sheet(data_set / MANIFEST_NAME, tmp_path / "sheet.png", rows=2, split="val", columns=3)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 2 * 128, 3 * 128, 3)
    plain, drawn = sheet[:128], sheet[128:256]
    assert (plain != drawn).any()
