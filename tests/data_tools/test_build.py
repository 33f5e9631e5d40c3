"""Whole builds of demo clips and broken files, with the real decoder and the embedded keypoint network."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data_tools.build import Done, run_command
from data_tools.poses import find_poses, read_poses
from data_tools.probing import probe_video
from data_tools.records import ClipPlan, Clips
from data_tools.settings import BuildSettings
from lisa_video.config.load import load_settings
from lisa_video.data.batch import SampleKey
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.manifest import Manifest, iter_records
from lisa_video.errors import UserError
from lisa_video.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
NO_FILTERS = ROOT / "configs/data/filters_none.yaml"
OVERRIDES = ["poses.detector.kind=keypoint_net", "clips.min_frames=4", "manifest.val_fraction=0.3"]
STEPS = ("listing", "probe", "shots", "clips", "poses", "verdicts")
GOOD = ["a.mp4", 'inner/it\'s "b".mp4', "line\nbreak.mp4", "видео 影片.mp4"]


def build(videos: Path, out: Path, *overrides: str, command: str = "build", retry: bool = False) -> Done:
    settings = load_settings(BuildSettings, NO_FILTERS, [*OVERRIDES, "engine.workers=1", *overrides])
    folder = videos if command in ("build", "probe") else None
    return run_command(command, out, settings, videos=folder, retry=retry, progress=False)


def tasks(**numbers: int) -> dict[str, int]:
    return {step: numbers.get(step, 0) for step in STEPS}


def snapshot(out: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(out)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def data_set(out: Path) -> dict[str, bytes]:
    """What a data set consists of: the manifest and the keypoints that it names."""
    manifest = out / "manifest.jsonl"
    names = [record.keypoints for record in iter_records(manifest)]
    return {"manifest": manifest.read_bytes()} | {name: (out / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def built(tmp_path_factory, demo_clips) -> SimpleNamespace:
    """A folder with good and broken files, and a finished build within it. Read only."""
    videos = tmp_path_factory.mktemp("mixed") / "videos"
    (videos / "inner").mkdir(parents=True)
    for name, clip in zip(GOOD, demo_clips, strict=False):
        shutil.copy(clip, videos / name)
    shutil.copy(videos / "a.mp4", videos / "a copy.mp4")
    (videos / "empty.mp4").touch()
    (videos / "empty too.mp4").touch()
    (videos / "text.mp4").write_text("no video")
    (videos / "cut.mp4").write_bytes(demo_clips[5].read_bytes()[:600])
    (videos / "loop.mp4").symlink_to(videos / "loop.mp4")
    out = videos / "data set"
    return SimpleNamespace(videos=videos, out=out, done=build(videos, out))


BROKEN = {"empty.mp4", "empty too.mp4", "text.mp4", "cut.mp4", "loop.mp4"}


@pytest.fixture
def copied(built, tmp_path) -> SimpleNamespace:
    """A copy of the finished build, to work on."""
    videos = tmp_path / "videos"
    shutil.copytree(built.videos, videos, symlinks=True)
    return SimpleNamespace(videos=videos, out=videos / "data set")


def test_good_files_make_a_data_set_of_two_splits(built):
    records = list(iter_records(built.out / "manifest.jsonl"))
    assert sorted(record.source for record in records) == sorted(["a copy.mp4", *GOOD[1:]])
    assert {record.split for record in records} == {"train", "val"}


def test_broken_files_are_in_quarantine_with_reason_and_remedy(built):
    lines = [json.loads(line) for line in (built.out / "quarantine.jsonl").read_text().splitlines()]
    assert {line["path"] for line in lines} == BROKEN and built.done.quarantined == len(BROKEN)
    assert all(line["reason"] and line["remedy"] for line in lines)


def test_the_accounts_add_up(built):
    accounts = built.done.accounts
    assert accounts.files == len(GOOD) + 1 + len(BROKEN) and accounts.files_of_unknown_length == len(BROKEN)
    assert accounts.seconds == pytest.approx((len(GOOD) + 1) * 8 / 12, abs=1e-3)
    assert sum(row.seconds for row in accounts.rows) == pytest.approx(accounts.seconds, abs=1e-4)
    assert {(row.kind, row.clips) for row in accounts.rows if row.kind == "kept"} <= {("kept", 1), ("kept", 3)}
    assert json.loads((built.out / "summary.json").read_text()) == accounts.model_dump(mode="json")


def test_the_second_time_nothing_is_done(built):
    before = snapshot(built.out)
    done = build(built.videos, built.out)
    assert done.tasks == tasks() and done.accounts == built.done.accounts
    assert snapshot(built.out) == before


def test_every_clip_can_be_loaded_for_training(built):
    for split in ("train", "val"):
        manifest = Manifest(built.out / "manifest.jsonl", split)
        data = PoseClipDataset(manifest, num_frames=8, frame_stride=1, size=(32, 32), random_start=False)
        for index in range(len(manifest)):
            clip = data[SampleKey(position=index, index=index)]
            assert not clip.skipped and clip.clip_id == manifest[index].clip_id
            assert np.isfinite(clip.keypoints.xy).all() and clip.pose_maps.sum() > 0


def test_a_model_trains_on_it(built, tiny_config):
    from lisa_video.distributed import prepare_environment
    from lisa_video.training.engine import start_process_group

    prepare_environment()
    start_process_group()
    config = tiny_config(f"data.manifest={built.out / 'manifest.jsonl'}", "training.max_steps=1", "preview.every=0")
    Trainer(config).run()
    assert list(Path(config.run_dir).rglob("*.safetensors"))


def test_another_video_is_one_video_of_work(copied, demo_clips):
    records = set((copied.out / "manifest.jsonl").read_text().splitlines()[1:])
    before = snapshot(copied.out / "videos")
    shutil.copy(demo_clips[6], copied.videos / "new.mp4")
    done = build(copied.videos, copied.out)
    assert done.tasks == tasks(listing=1, probe=1, shots=1, clips=1, poses=1, verdicts=1)
    assert records < set((copied.out / "manifest.jsonl").read_text().splitlines()[1:])
    assert before.items() < snapshot(copied.out / "videos").items()


def test_a_video_that_is_gone_is_left_out_and_named(copied):
    (copied.videos / "line\nbreak.mp4").unlink()
    done = build(copied.videos, copied.out)
    assert done.gone == ["line\nbreak.mp4"] and done.tasks == tasks()
    assert "line\nbreak.mp4" not in {record.source for record in iter_records(copied.out / "manifest.jsonl")}


def test_other_rules_judge_again_and_decode_nothing(copied):
    done = build(copied.videos, copied.out, "filters.short_side.min=64")
    assert done.tasks == tasks(verdicts=len(GOOD))
    assert [(row.detail, row.clips) for row in done.accounts.rows if row.kind == "filtered"] == [("short_side", 4)]
    assert not list(iter_records(copied.out / "manifest.jsonl"))


def test_a_video_that_takes_too_long_goes_into_quarantine(copied, demo_clips):
    shutil.copy(demo_clips[6], copied.videos / "slow.mp4")
    limit = "poses.timeout_s=0.3"  # not even enough to load the detector
    done = build(copied.videos, copied.out, limit)
    (line,) = [line for line in (copied.out / "quarantine.jsonl").read_text().splitlines() if "slow.mp4" in line]
    assert "not done within 0.3 s" in line and "raise poses.timeout_s" in line
    assert done.tasks == tasks(listing=1, probe=1, shots=1, clips=1, poses=1)
    assert build(copied.videos, copied.out, limit).tasks == tasks()


def test_failures_are_tried_again_when_asked(copied):
    done = build(copied.videos, copied.out, retry=True)
    assert done.tasks == tasks(probe=3) and done.quarantined == len(BROKEN)  # the empty files are one content


def test_a_step_needs_those_before_it(tmp_path, demo_clips):
    with pytest.raises(UserError, match="no such data build"):
        build(demo_clips[0].parent, tmp_path / "out", command="shots")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="not listed yet"):
        build(demo_clips[0].parent, tmp_path / "out", command="poses")
    build(demo_clips[0].parent, tmp_path / "out", command="probe")
    with pytest.raises(UserError, match=r"12 videos were not through step probe.*data probe VIDEOS_DIR OUT"):
        build(demo_clips[0].parent, tmp_path / "out", "probe.max_fps=99", command="shots")
    with pytest.raises(UserError, match=r"12 videos were not through step clips.*data shots OUT"):
        build(demo_clips[0].parent, tmp_path / "out", command="poses")


def test_folders_that_cannot_work_are_refused(tmp_path, demo_clips):
    videos = tmp_path / "videos"
    videos.mkdir()
    with pytest.raises(UserError, match="no such folder of videos"):
        build(tmp_path / "none", tmp_path / "out")
    with pytest.raises(UserError, match="holds no files"):
        build(videos, tmp_path / "out")
    shutil.copy(demo_clips[0], videos)
    for out in (videos, tmp_path):  # results go to OUT/videos
        with pytest.raises(UserError, match="among the videos"):
            build(videos, out)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Not a directory"):
        build(videos, tmp_path / "file/out")


def test_two_commands_in_one_folder_do_not_mix(copied):
    with open(copied.out / "build.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another command is at work"):
            build(copied.videos, copied.out)


def command(videos: Path, out: Path, *arguments: str) -> list[str]:
    program = [str(Path(sys.executable).parent / "lisa-video"), "data", "build", str(videos), str(out)]
    return [*program, *OVERRIDES, "--config", str(NO_FILTERS), "--workers", "2", *arguments]


def test_a_full_disk_stops_the_job_and_costs_nothing_that_is_done(tmp_path, demo_clips):
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    shutil.copy(demo_clips[0], videos)
    # No file may grow beyond 2 KiB: records do not, keypoints do. The error is that of a full disk, but for its number.
    limited = ["bash", "-c", 'ulimit -f 2; exec "$@"', "bash", *command(videos, out)]
    full = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert full.returncode == 2 and "Traceback" not in full.stderr, full.stderr
    assert "free some disk, then run the same command again" in full.stderr
    assert {path.name for path in out.rglob("*.json")} == {"probe.json", "shots.json", "clips.json"}
    done = build(videos, out)
    assert done.tasks == tasks(poses=1, verdicts=1)
    assert not list(out.rglob("*.tmp")) and done.quarantined == 0


def test_step_by_step_it_is_the_same(built, tmp_path):
    videos = tmp_path / "videos"
    shutil.copytree(built.videos, videos, symlinks=True, ignore=shutil.ignore_patterns("data set"))
    out = videos / "data set"
    build(videos, out, command="probe")
    build(videos, out, command="shots")
    build(videos, out, command="poses")
    build(videos, out, command="filter")
    assert build(videos, out, command="manifest").accounts == built.done.accounts
    assert data_set(out) == data_set(built.out)


@pytest.fixture
def one_video(tmp_path, demo_clips) -> SimpleNamespace:
    """A video of 8 frames of 32 x 32 pixels, and a plan of two clips and one that is beyond its end."""
    settings = load_settings(BuildSettings, NO_FILTERS, OVERRIDES)
    plans = [ClipPlan(clip_id=f"c-{start}", start=start, num_frames=4, stride=1, fps=12.0) for start in (0, 4, 90)]
    probe = probe_video(demo_clips[0], settings.probe)

    def poses(*plans: ClipPlan, **changes: object):
        chosen = settings.poses.model_copy(update=changes)
        return find_poses(demo_clips[0], probe, Clips(clips=plans, too_short=0), tmp_path, chosen)

    return SimpleNamespace(folder=tmp_path, plans=plans, poses=poses)


def test_a_clip_that_cannot_be_decoded_does_not_lose_the_others(one_video):
    poses = one_video.poses(*one_video.plans)
    assert [clip.clip_id for clip in poses.clips] == ["c-0", "c-4"]
    ((clip_id, reason),) = poses.failed
    assert clip_id == "c-90" and reason


def test_clips_that_are_there_are_not_detected_again(one_video):
    first, second, _ = one_video.plans
    (clip,) = one_video.poses(first).clips
    before = snapshot(one_video.folder)
    assert clip in one_video.poses(first, second).clips
    assert before.items() < snapshot(one_video.folder).items()
    # Files that nobody names any more are removed.
    one_video.poses(second)
    assert len(snapshot(one_video.folder)) == 2


def test_shrinking_the_frames_leaves_keypoints_in_pixels_of_the_video(one_video):
    (full,) = one_video.poses(one_video.plans[0]).clips
    expected, _ = read_poses(one_video.folder, full)
    (small,) = one_video.poses(one_video.plans[0], max_side=20).clips
    found, measures = read_poses(one_video.folder, small)
    assert small != full and measures.num_frames == found.num_frames == 4
    assert np.median(np.abs(found.xy - expected.xy)) < 1.5
