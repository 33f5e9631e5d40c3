"""Sampling of held-out clips: files that survive a kill, and pixels that depend on nothing but the job."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from eval.runs.generate import GenerationJob, generate, group_size, held_out_clips, load_generated
from eval.runs.sample_protocol import sample_protocol
from lisa_video.data.batch import collate
from lisa_video.data.manifest import ClipRecord, iter_records, write_manifest
from lisa_video.data.video_io import VideoReadError
from lisa_video.errors import UserError
from lisa_video.pipeline import PoseVideoPipeline


def contents(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in folder.glob("*.npz")}


def edit_config(run: Path, section: str, **values: object) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config[section] |= values
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


@pytest.fixture(scope="module")
def generated(tiny_runs) -> Path:
    """All three held-out clips of the LISA run. Read only."""
    return generate(GenerationJob(str(tiny_runs / "lisa"), 3))


def test_clips_are_those_of_the_pipeline(tiny_runs, generated):
    job = GenerationJob(str(tiny_runs / "lisa"), 3)
    clips = list(held_out_clips(job.config, 3))
    batch = collate(clips)
    expected = PoseVideoPipeline.from_run(job.run_dir)(
        batch.reference, batch.pose_maps, batch.fps, seed=0, keys=batch.clip_ids
    )
    assert sorted(contents(generated)) == sorted(clip.clip_id for clip in clips)
    for clip, video in zip(clips, expected.numpy(), strict=True):
        frames = load_generated(generated, clip.clip_id)
        assert frames.shape == (4, 32, 32, 3) and frames.dtype == np.uint8
        assert np.array_equal(frames, video)


def test_other_sampling_settings_give_other_clips_in_another_folder(tiny_runs, generated):
    job = GenerationJob(str(tiny_runs / "lisa"), 1, overrides=("sampling.pose_guidance=2",))
    batch = collate(list(held_out_clips(job.config, 1)))
    guided = PoseVideoPipeline.from_run(job.run_dir, overrides=job.overrides)
    expected = guided(batch.reference, batch.pose_maps, batch.fps, seed=0, keys=batch.clip_ids)[0].numpy()
    folder, name = generate(job), batch.clip_ids[0]
    assert folder != generated
    # A batch of another size may round otherwise, by one grey level.
    assert np.abs(load_generated(folder, name).astype(int) - expected).max() <= 1
    assert not np.array_equal(load_generated(folder, name), load_generated(generated, name))
    assert sample_protocol(job)["sampling"]["pose_guidance"] == 2.0


def test_only_what_is_missing_is_made_again_and_comes_out_the_same(tiny_run):
    job = GenerationJob(str(tiny_run), 3)
    folder = generate(job)
    before, times = contents(folder), {path.stem: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    lost = sorted(before)[1]
    (folder / f"{lost}.npz").unlink()
    (folder / f"{lost}.tmp").write_bytes(b"half a fi")  # of a kill
    assert generate(job) == folder
    assert contents(folder) == before
    changed = {path.stem for path in folder.glob("*.npz") if path.stat().st_mtime_ns != times[path.stem]}
    assert changed == {lost}


def test_finished_clips_load_no_model(tiny_run, monkeypatch):
    job = GenerationJob(str(tiny_run), 3)
    generate(job)
    monkeypatch.setattr(PoseVideoPipeline, "from_run", lambda *_: pytest.fail("loaded"))
    generate(job)
    generate(replace(job, num_clips=2))


def test_a_folder_goes_on_with_the_group_that_it_was_begun_with(tiny_run):
    job = GenerationJob(str(tiny_run), 1, group=1)
    folder = generate(job)
    assert len(contents(folder)) == 1  # a group is made whole
    generate(GenerationJob(str(tiny_run), 2))
    assert len(contents(folder)) == 2 and group_size(replace(job, group=7)) == 1


@pytest.mark.parametrize("num_clips", [1, 2, 99])
def test_the_number_of_clips_changes_no_pixel(tiny_run, generated, num_clips):
    folder = generate(GenerationJob(str(tiny_run), num_clips))
    assert {name: contents(generated)[name] for name in contents(folder)} == contents(folder)
    assert len(contents(folder)) >= min(num_clips, 3)


@pytest.fixture
def one_thread():
    """Sums of floats depend on the number of threads; worker processes have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_processes_change_no_pixel(tiny_run, one_thread):
    job = GenerationJob(str(tiny_run), 2, group=1)
    alone = contents(generate(job))
    for path in job.folder.glob("*.npz"):
        path.unlink()
    assert contents(generate(job, num_processes=2)) == alone


def test_other_weights_data_or_settings_go_to_another_folder(tiny_run, tiny_manifest, tmp_path):
    job = GenerationJob(str(tiny_run), 3)
    folders = [job.folder, replace(job, seed=1).folder]
    folders += [replace(job, source=source).folder for source in ("uncontrolled", "codec")]
    edit_config(tiny_run, "sampling", num_steps=3)
    folders.append(job.folder)
    other = tmp_path / "other.jsonl"
    write_manifest(other, list(iter_records(tiny_manifest))[::-1])
    edit_config(tiny_run, "data", manifest=str(other))
    folders.append(job.folder)
    weights = next((tiny_run / "weights/side_branch").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    folders.append(job.folder)
    assert len(set(folders)) == len(folders)
    edit_config(tiny_run, "data", num_workers=7)  # changes nothing
    assert job.folder == folders[-1]
    assert replace(job, num_clips=1).folder == folders[-1]


def test_without_control_the_weights_do_not_matter(tiny_runs):
    baseline, lisa = (
        generate(GenerationJob(str(tiny_runs / arm), 2, source="uncontrolled")) for arm in ("baseline", "lisa")
    )
    assert contents(baseline) == contents(lisa)
    controlled = contents(generate(GenerationJob(str(tiny_runs / "lisa"), 2)))
    assert all(controlled[name] != value for name, value in contents(lisa).items())


def test_the_codec_gives_the_truth_back_as_far_as_it_can(tiny_runs, tiny_parts):
    job = GenerationJob(str(tiny_runs / "lisa"), 2, source="codec")
    folder = generate(job)
    for clip in held_out_clips(job.config, 2):
        frames = collate([clip]).frames
        expected = tiny_parts.codec.decode_video(tiny_parts.codec.encode_video(frames))[0].clamp(-1, 1)
        found = torch.from_numpy(load_generated(folder, clip.clip_id)).permute(0, 3, 1, 2) / 127.5 - 1
        assert (found - expected).abs().max() < 0.01


def test_an_unusable_clip_is_left_out_and_not_replaced(tiny_run, tiny_manifest, tmp_path, caplog):
    def moved(record: ClipRecord, broken: str) -> ClipRecord:
        files = {name: str(tiny_manifest.parent / getattr(record, name)) for name in ("video", "keypoints")}
        return record.model_copy(update=files | ({"video": "gone.mp4"} if record.clip_id == broken else {}))

    records = list(iter_records(tiny_manifest))
    held_out = [record.clip_id for record in records if record.split == "val"]
    write_manifest(tmp_path / "manifest.jsonl", (moved(record, held_out[1]) for record in records))
    edit_config(tiny_run, "data", manifest=str(tmp_path / "manifest.jsonl"))
    job = GenerationJob(str(tiny_run), 3)
    assert sorted(contents(generate(job))) == [held_out[0], held_out[2]]
    assert f"left out clip {held_out[1]}" in caplog.text and "gone.mp4: no such video" in caplog.text
    assert [clip.clip_id for clip in held_out_clips(job.config, 3)] == [held_out[0], held_out[2]]


def test_no_run_and_no_weights(tmp_path, tiny_config):
    with pytest.raises(UserError, match="not a run"):
        generate(GenerationJob(str(tmp_path), 2))
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(tiny_config().model_dump(mode="json")), encoding="utf-8")
    with pytest.raises(UserError, match=r"no trained weights.*train first"):
        generate(GenerationJob(str(run), 2))


def test_weights_of_another_backbone_are_refused(tiny_run):
    path = tiny_run / "weights/contract.json"
    contract = json.loads(path.read_text(encoding="utf-8"))
    contract["backbone"]["latent_scaling_factor"] = 0.5
    path.write_text(json.dumps(contract), encoding="utf-8")
    with pytest.raises(UserError, match=r"trained with latent_scaling_factor = 0\.5"):
        generate(GenerationJob(str(tiny_run), 2))


@pytest.mark.parametrize("kind", [UserError, VideoReadError])
def test_mistakes_survive_the_way_out_of_a_worker(kind):
    error = kind("too short", where=Path("clips/a.mp4"), remedy="cut it again")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind and str(copy) == str(error)
    assert (copy.what, copy.where, copy.remedy) == (error.what, error.where, error.remedy)
