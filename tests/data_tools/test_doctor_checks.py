"""The doctor's checks: each kind of damage is found, named once, and nothing else is."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from data_tools.doctor.clip_checks import ClipTask, look_at_bytes, look_at_clip
from data_tools.doctor.findings import CHECKS, HEAT_CELLS, ClipFindings
from data_tools.doctor.set_checks import check_set, read_records
from data_tools.rules import RULES
from data_tools.settings import FilterSettings, Limits
from lisa_video.data.manifest import ClipRecord, iter_records
from lisa_video.errors import UserError
from lisa_video.pose.keypoints import Keypoints, load_keypoints, save_keypoints

LIMITS = FilterSettings(short_side=Limits(min=32))


@pytest.fixture(scope="module")
def records(tiny_manifest) -> list[ClipRecord]:
    return list(iter_records(tiny_manifest))


def looked_at(root: Path, record: ClipRecord, **changes: object) -> ClipFindings:
    return look_at_clip(ClipTask(root, record.model_copy(update=changes), LIMITS))


def checks(findings: ClipFindings) -> list[str]:
    assert all(problem.check in CHECKS and problem.clip_id == findings.clip_id for problem in findings.problems)
    return [problem.check for problem in findings.problems]


def test_a_healthy_clip_is_measured_and_has_no_problem(tiny_manifest, records):
    found = looked_at(tiny_manifest.parent, records[0])
    assert not found.problems and not found.broken
    assert found.decoded == 8 and 0 < found.luma < 255 and found.reference_track == 0
    assert list(found.values) == [rule.name for rule in RULES]
    poses = load_keypoints(tiny_manifest.parent / records[0].keypoints)
    inside = ((poses.xy >= 0) & (poses.xy < 32)).all(axis=-1)
    assert (
        found.joints.shape == (HEAT_CELLS, HEAT_CELLS) and found.joints.sum() == (inside & (poses.score >= 0.5)).sum()
    )


def test_joints_lie_in_the_cells_of_the_frame(tiny_manifest, records):
    record = records[0]
    poses = load_keypoints(tiny_manifest.parent / record.keypoints)
    joints = looked_at(tiny_manifest.parent, record).joints
    # Frames of 32 x 32 pixels and 32 x 32 cells: a joint's cell is its pixel.
    x, y = np.floor(poses.xy[poses.score >= 0.5].mean(axis=0))
    rows, columns = np.nonzero(joints)
    assert abs(rows.mean() - y) < 4 and abs(columns.mean() - x) < 4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"video": "videos/none.mp4"}, ["missing"]),
        ({"video": "manifest.jsonl"}, ["decode"]),
        ({"start_frame": 3}, ["decode"]),
        ({"width": 64, "height": 48}, ["size"]),
        ({"fps": 25.0}, ["fps"]),
        ({"fps": 12.3}, []),
        ({"keypoints": "keypoints/none.npz"}, ["keypoints"]),
        ({"keypoints": "manifest.jsonl"}, ["keypoints"]),
        ({"num_frames": 5}, ["count"]),
    ],
    ids=str,
)
def test_what_the_manifest_says_wrongly(changes, expected, tiny_manifest, records):
    found = looked_at(tiny_manifest.parent, records[0], **changes)
    assert checks(found) == expected
    judged = {tuple(expected)} <= {(), ("size",), ("fps",)}
    assert bool(found.values) == judged


def test_a_cut_off_video_names_the_frames(tiny_manifest, records, tmp_path):
    shutil.copytree(tiny_manifest.parent, tmp_path, dirs_exist_ok=True)
    video = tmp_path / records[0].video
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    found = looked_at(tmp_path, records[0])
    assert checks(found) == ["decode"] and found.decoded < 8


def with_keypoints(root: Path, record: ClipRecord, poses: Keypoints) -> ClipFindings:
    (root / "keypoints").mkdir(exist_ok=True)
    save_keypoints(root / "keypoints" / "other.npz", poses)
    return looked_at(root, record, keypoints="keypoints/other.npz")


@pytest.fixture
def copied(tiny_manifest, records, tmp_path) -> tuple[Path, ClipRecord, Keypoints]:
    (tmp_path / records[0].video).parent.mkdir(parents=True)
    shutil.copy(tiny_manifest.parent / records[0].video, tmp_path / records[0].video)
    return tmp_path, records[0], load_keypoints(tiny_manifest.parent / records[0].keypoints)


@pytest.mark.parametrize(("value", "what"), [(1.5, "not in"), (np.nan, "not in"), (-0.1, "not in")])
def test_impossible_scores(value, what, copied):
    root, record, poses = copied
    poses.score[2, 0, 3] = value
    found = with_keypoints(root, record, poses)
    assert checks(found) == ["scores"] and "1 of 136" in found.problems[0].what and what in found.problems[0].what


def test_joints_with_a_score_and_no_place(copied):
    root, record, poses = copied
    poses.score[:] = 0.9
    poses.xy[:2, 0, 5] = np.nan
    found = with_keypoints(root, record, poses)
    assert checks(found) == ["scores"] and "2 of 136" in found.problems[0].what


@pytest.mark.parametrize(("scale", "expected"), [(1.05, []), (4.0, ["outside"])])
def test_keypoints_of_another_size(scale, expected, copied):
    root, record, poses = copied
    moved = Keypoints(poses.xy * np.float32(scale), poses.score, poses.track_id)
    assert checks(with_keypoints(root, record, moved)) == expected


def test_nobody(copied):
    root, record, poses = copied
    nobody = Keypoints(np.full_like(poses.xy, np.nan), np.zeros_like(poses.score), poses.track_id)
    found = with_keypoints(root, record, nobody)
    assert checks(found) == ["nobody"] and found.reference_track is None and "people" in found.broken


def test_bytes_that_changed(tiny_manifest, records, tmp_path):
    root, record = tiny_manifest.parent, records[0]
    assert look_at_bytes((root, record)) is None
    other = record.model_copy(update={"source_digest": "sha256:" + "0" * 64})
    problem = look_at_bytes((root, other))
    assert problem is not None and problem.check == "changed" and problem.where == record.video
    assert look_at_bytes((tmp_path, record)) is None  # a missing video is a problem of its clips


def test_a_healthy_set_has_no_problem(records):
    assert not check_set(records)


def test_names_that_are_used_twice(records):
    problems = check_set([*records, records[3]])
    assert [(problem.check, problem.clip_id) for problem in problems] == [("clip_id", records[3].clip_id)]


def test_the_same_frames_under_two_names(records):
    problems = check_set([*records, records[3].model_copy(update={"clip_id": "again"})])
    assert [(problem.check, problem.clip_id) for problem in problems] == [("repeated", "again")]
    later = records[3].model_copy(update={"clip_id": "later", "start_frame": 1})
    assert not check_set([*records, later])


def test_sources_in_both_splits(records):
    train = next(record for record in records if record.split == "train")
    other = {"clip_id": "leak", "split": "val", "start_frame": 1}
    (by_name,) = check_set([*records, train.model_copy(update=other)])
    assert by_name.check == "leak" and by_name.where == train.source
    (by_content,) = check_set([*records, train.model_copy(update={**other, "source": "copy of it"})])
    assert by_content.check == "leak" and by_content.where == train.source_digest and "copy of it" in by_content.what


def test_broken_lines_of_a_manifest_are_named_and_passed_over(tiny_manifest, tmp_path, records):
    lines = tiny_manifest.read_text(encoding="utf-8").splitlines()
    lines[3] = lines[3].replace('"split":"', '"split":"x')
    lines[5] = lines[5][:40]
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    clips, problems = read_records(path)
    assert len(clips) == len(records) - 2
    assert [problem.where for problem in problems] == ["manifest.jsonl, line 4", "manifest.jsonl, line 6"]
    assert all(problem.check == "manifest" for problem in problems)


def test_a_manifest_without_clips_is_an_error(tiny_manifest, tmp_path):
    path = tmp_path / "manifest.jsonl"
    path.write_text(tiny_manifest.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="no clip"):
        read_records(path)
