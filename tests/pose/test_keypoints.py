"""Laws of the keypoint file."""

import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.pose.keypoints import Keypoints, load_keypoints, save_keypoints


def _keypoints(frames=4, people=2):
    random = np.random.default_rng(0)
    xy = random.normal(size=(frames, people, 17, 2)).astype(np.float32)
    xy[0, :, 0] = np.nan
    return Keypoints(xy, random.uniform(size=(frames, people, 17)).astype(np.float32), np.arange(people) + 5)


@pytest.mark.parametrize("people", [0, 2])
def test_file_is_lossless_and_its_bytes_repeat(tmp_path, people):
    keypoints = _keypoints(people=people)
    for name in ("a.npz", "b.npz"):
        save_keypoints(tmp_path / name, keypoints)
    back = load_keypoints(tmp_path / "a.npz")
    assert np.array_equal(back.xy, keypoints.xy, equal_nan=True) and back.xy.dtype == np.float32
    assert np.array_equal(back.score, keypoints.score) and np.array_equal(back.track_id, keypoints.track_id)
    assert back.skeleton == "coco17"
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_chosen_frames():
    keypoints = _keypoints()
    assert keypoints.num_frames == 4
    chosen = keypoints.frames(np.array([3, 1]))
    assert np.array_equal(chosen.xy, keypoints.xy[[3, 1]]) and np.array_equal(chosen.score, keypoints.score[[3, 1]])
    assert keypoints.frames(slice(1, 2)).num_frames == 1


@pytest.mark.parametrize(
    ("xy", "score", "track"),
    [((2, 1, 17, 2), (2, 1, 16), (1,)), ((2, 1, 17, 3), (2, 1, 17), (1,)), ((2, 1, 17, 2), (2, 1, 17), (2,))],
)
def test_wrong_shapes_are_refused(xy, score, track):
    with pytest.raises(ValueError, match="must be"):
        Keypoints(np.zeros(xy, np.float32), np.zeros(score, np.float32), np.zeros(track, np.int64))


def _spoil(path, kind):
    save_keypoints(path, _keypoints())
    content = bytearray(path.read_bytes())
    if kind == "missing":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(content[:500])
    elif kind == "zero":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no keypoints")
    elif kind == "flipped bytes":
        content[400:440] = bytes(255 - byte for byte in content[400:440])
        path.write_bytes(content)
    elif kind == "lone array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "other arrays":
        np.savez(path, version=np.int64(1), xy=np.zeros(3))
    elif kind == "wrong shape":
        np.savez(path, version=1, xy=np.zeros(3), score=np.zeros(3), track_id=np.zeros(1), skeleton="coco17")


@pytest.mark.parametrize(
    "kind", ["missing", "cut", "zero", "text", "flipped bytes", "lone array", "other arrays", "wrong shape"]
)
def test_bad_files_are_users_errors_that_name_the_file(tmp_path, kind):
    _spoil(tmp_path / "bad.npz", kind)
    with pytest.raises(UserError, match=r"bad\.npz.*Remedy"):
        load_keypoints(tmp_path / "bad.npz")


def test_other_version_is_refused_by_number(tmp_path):
    np.savez(tmp_path / "new.npz", version=np.int64(2))
    with pytest.raises(UserError, match=r"version 2.*reads 1"):
        load_keypoints(tmp_path / "new.npz")
