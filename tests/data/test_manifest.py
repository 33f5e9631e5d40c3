"""Laws of the manifest."""

import json
import pickle

import numpy as np
import pytest
from pydantic import ValidationError

from lisa_video.data.manifest import ClipRecord, Manifest, iter_records, read_header, write_manifest
from lisa_video.errors import UserError


def _record(number, split="train", **changes):
    values = {
        "clip_id": f"clip{number}", "video": "v/a.mp4", "start_frame": number, "num_frames": 9, "fps": 24.0,
        "width": 64, "height": 48, "keypoints": "k/ä.npz", "split": split, "source": "a",
        "source_digest": "sha256:" + "0" * 64, "attributes": {"look": "red"},
    }  # fmt: skip
    return ClipRecord(**{**values, **changes})


@pytest.fixture
def path(tmp_path):
    """A manifest of four training clips with two validation clips between them."""
    path = tmp_path / "manifest.jsonl"
    splits = ["train", "val", "train", "train", "val", "train"]
    records = (_record(number, split) for number, split in enumerate(splits))
    assert write_manifest(path, records, tool="test", seed=3) == 6
    return path


def test_records_come_back_in_order(path):
    assert [record.start_frame for record in iter_records(path)] == list(range(6))
    assert next(iter(iter_records(path))) == _record(0)
    assert read_header(path) == {"schema": "lisa_video.manifest", "version": 1, "tool": "test", "seed": 3}
    assert [entry.name for entry in path.parent.iterdir()] == ["manifest.jsonl"]


def test_splits_have_random_access(path):
    train, val = Manifest(path, "train"), Manifest(path, "val")
    assert (len(train), len(val)) == (4, 2)
    assert [train[index].start_frame for index in (3, 0, 2)] == [5, 0, 3]
    assert val[1] == _record(4, "val")
    assert pickle.loads(pickle.dumps(train))[1] == train[1]  # as for a worker
    with pytest.raises(IndexError):
        train[4]


def test_records_without_a_stride_are_of_consecutive_frames(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "".join(line.replace('"frame_stride":1,', "") for line in lines[1:]))
    assert "frame_stride" not in path.read_text() and next(iter(iter_records(path))) == _record(0)
    strided = _record(7, frame_stride=3)
    assert strided.in_video(np.array([0, 2, 8])).tolist() == [7, 13, 31] and strided.clip_fps == 8.0


def test_paths_move_with_the_manifest(path):
    assert Manifest(path, "train").resolve("v/a.mp4") == path.parent / "v/a.mp4"


@pytest.mark.parametrize(
    "change",
    [
        {"num_frames": 0}, {"frame_stride": 0}, {"start_frame": -1}, {"fps": 0}, {"fps": float("inf")}, {"width": 0},
        {"split": "test"},
        {"source_digest": "md5:1"}, {"clip_id": ""}, {"clip_id": "a/b"}, {"surprise": 1},
    ],
)  # fmt: skip
def test_impossible_records_are_refused(change):
    with pytest.raises(ValidationError):
        _record(0, **change)


@pytest.mark.parametrize("damage", ["cut", "field", "bytes"])
def test_broken_line_is_named_by_its_number(path, damage):
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = {"cut": lines[3][:40] + b"\n", "field": lines[3].replace(b'"fps"', b'"fsp"'), "bytes": b"\xff\xfe\n"}[
        damage
    ]
    path.write_bytes(b"".join(lines))
    for call in (lambda: Manifest(path, "train"), lambda: list(iter_records(path))):
        with pytest.raises(UserError, match="line 4"):
            call()


@pytest.mark.parametrize("first_line", ["", "text", "[]", '{"schema": "other", "version": 1}'])
def test_other_files_are_refused(tmp_path, first_line):
    (tmp_path / "m.jsonl").write_text(first_line + "\n")
    with pytest.raises(UserError, match="not a lisa_video manifest"):
        Manifest(tmp_path / "m.jsonl", "train")


def test_other_version_missing_file_and_empty_split_are_refused(tmp_path):
    path = tmp_path / "m.jsonl"
    with pytest.raises(UserError, match="no such manifest"):
        read_header(path)
    path.write_text(json.dumps({"schema": "lisa_video.manifest", "version": 2}) + "\n")
    with pytest.raises(UserError, match="version 2"):
        read_header(path)
    write_manifest(path, [_record(0)])
    with pytest.raises(UserError, match="no clip of split 'val'"):
        Manifest(path, "val")


def test_failed_writing_leaves_the_old_manifest(path):
    def records():
        yield _record(0)
        raise RuntimeError("stopped")

    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="stopped"):
        write_manifest(path, records())
    assert path.read_bytes() == before
