"""Laws of reading and writing videos."""

import cv2
import numpy as np
import pytest

from lisa_video.data import video_io
from lisa_video.data.video_io import VideoReadError, probe, read_frames, write_video
from lisa_video.errors import UserError


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """40 frames of 64x48 whose number is their brightness over 6."""
    path = tmp_path_factory.mktemp("video") / "numbered.mp4"
    write_video(path, np.repeat(np.arange(40, dtype=np.uint8) * 6, 48 * 64 * 3).reshape(40, 48, 64, 3), 30000 / 1001)
    return path


@pytest.mark.parametrize("numbers", [[0], [39], [0, 1, 2], [39, 3, 3, 17], list(range(1, 40, 5))])
def test_frames_asked_for_are_frames_returned(video, numbers):
    frames = read_frames(video, np.array(numbers))
    assert frames.shape == (len(numbers), 48, 64, 3) and frames.dtype == np.uint8
    assert np.rint(frames.mean(axis=(1, 2, 3)) / 6).astype(int).tolist() == numbers


@pytest.mark.parametrize("width", [16, 24, 46, 48, 50, 64, 72, 90])
def test_every_width_is_read_exactly(tmp_path, width):
    frames = np.repeat(np.arange(12, dtype=np.uint8) * 20, 32 * width * 3).reshape(12, 32, width, 3)
    frames[:, :, : width // 2, 0] = 250
    write_video(tmp_path / "x.mp4", frames, 24)
    back = read_frames(tmp_path / "x.mp4", np.array([11, 2, 2, 7]))
    assert back.shape == (4, 32, width, 3)
    assert np.abs(back[:, :, 2:6].astype(int) - frames[[11, 2, 2, 7], :, 2:6]).max() <= 6
    assert np.abs(back[:, :, -6:-2].astype(int) - frames[[11, 2, 2, 7], :, -6:-2]).max() <= 6
    assert (probe(tmp_path / "x.mp4").width, probe(tmp_path / "x.mp4").num_frames) == (width, 12)


def test_probe_tells_what_was_written(video):
    info = probe(video)
    assert (info.num_frames, info.width, info.height) == (40, 64, 48)
    assert info.fps == pytest.approx(30000 / 1001, rel=1e-6)


@pytest.mark.parametrize("color", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (10, 200, 90)])
def test_colors_survive_the_round_trip(tmp_path, color):
    frames = np.empty((2, 16, 32, 3), np.uint8)
    frames[:] = color
    write_video(tmp_path / "x.mp4", frames, 8)
    assert np.abs(read_frames(tmp_path / "x.mp4", np.arange(2)).astype(int) - frames).max() <= 4


def test_equal_frames_give_equal_bytes_and_no_draft(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, frames, 24)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert b"Lavf" not in (tmp_path / "a.mp4").read_bytes()  # nor does the library's version change them
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_crf_trades_size_for_truth(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "fine.mp4", frames, 24, crf=5)
    write_video(tmp_path / "coarse.mp4", frames, 24, crf=40)
    assert (tmp_path / "coarse.mp4").stat().st_size < (tmp_path / "fine.mp4").stat().st_size / 2


def test_failed_writing_leaves_the_old_video_and_no_draft(tmp_path, monkeypatch):
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    write_video(tmp_path / "x.mp4", frames, 8)
    before = (tmp_path / "x.mp4").read_bytes()

    def half_written(path, *_):
        path.write_bytes(before[:100])
        raise RuntimeError("stopped")

    monkeypatch.setattr(video_io, "_encode", half_written)
    with pytest.raises(RuntimeError, match="stopped"):
        write_video(tmp_path / "x.mp4", frames, 8)
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]
    assert (tmp_path / "x.mp4").read_bytes() == before


@pytest.mark.parametrize("size", [(31, 32), (32, 31)])
def test_odd_sizes_are_refused(tmp_path, size):
    with pytest.raises(UserError, match="even"):
        write_video(tmp_path / "x.mp4", np.zeros((1, *size, 3), np.uint8), 8)
    assert not list(tmp_path.iterdir())


def test_no_frames_is_a_programming_error(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        write_video(tmp_path / "x.mp4", np.zeros((0, 16, 16, 3), np.uint8), 8)


def _bad_file(kind, path, video):
    good = video.read_bytes()
    png = cv2.imencode(".png", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    contents = {"zero": b"", "text": b"no video\n" * 50, "header only": good[:900], "cut": good[: len(good) // 2]}
    contents["picture"] = png
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize("kind", ["missing", "folder", "zero", "text", "header only", "cut", "picture"])
def test_bad_files_are_users_errors_that_name_the_file(tmp_path, video, kind):
    path = _bad_file(kind, tmp_path / "bad.mp4", video)
    for call in (lambda: probe(path), lambda: read_frames(path, np.array([39]))):
        with pytest.raises(VideoReadError, match=r"bad\.mp4.*Remedy") as error:
            call()
        assert "\n" not in str(error.value)


def test_frame_past_the_end_is_a_users_error(video):
    with pytest.raises(VideoReadError, match=r"frame 40 .* has 40"):
        read_frames(video, np.array([0, 40]))


@pytest.mark.parametrize("numbers", [[-1, 0], []])
def test_impossible_indices_are_programming_errors(video, numbers):
    with pytest.raises(ValueError, match="indices"):
        read_frames(video, np.array(numbers, dtype=np.int64))
