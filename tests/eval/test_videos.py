"""Folders of videos: which frames make a clip, what is skipped, and that little is decoded ahead."""

import numpy as np
import pytest

from eval.videos import ClipProtocol, VideoFolder, ahead, pair
from lisa_video.data.video_io import read_frames
from lisa_video.errors import UserError

VIDEOS = {"b": 20, "a": 12, "sub/a": 33}


@pytest.fixture(scope="module")
def folder(make_videos, tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("videos"), VIDEOS)


@pytest.mark.parametrize(
    ("protocol", "frames", "starts"),
    [
        (ClipProtocol(16), 16, [0]),
        (ClipProtocol(16), 15, []),
        (ClipProtocol(16), 100, [0]),
        (ClipProtocol(16, start="middle"), 100, [42]),
        (ClipProtocol(4, stride=3), 10, [0]),
        (ClipProtocol(4, stride=3), 9, []),
        (ClipProtocol(4, stride=3, clips_per_video=None), 22, [0, 12]),
        (ClipProtocol(4, stride=3, clips_per_video=None), 21, [0]),
        (ClipProtocol(16, clips_per_video=None), 50, [0, 16, 32]),
        (ClipProtocol(16, clips_per_video=2, start="middle"), 50, [9, 25]),
        (ClipProtocol(1, clips_per_video=None), 3, [0, 1, 2]),
    ],
)
def test_clips_fit_into_the_video_and_share_no_frame(protocol, frames, starts):
    assert protocol.starts(frames) == starts


def test_clips_are_the_frames_of_the_files_in_alphabetical_order(folder):
    videos = VideoFolder(folder, ClipProtocol(4, stride=2, clips_per_video=2))
    assert videos.names == ["a", "b", "sub/a"]
    clips = list(videos.clips())
    assert [(clip.name, clip.place.start) for clip in clips] == [
        ("a", 0), ("b", 0), ("b", 8), ("sub/a", 0), ("sub/a", 8)
    ]  # fmt: skip
    for clip in clips:
        expected = read_frames(folder / f"{clip.name}.mp4", clip.place.start + np.array([0, 2, 4, 6]))
        np.testing.assert_array_equal(clip.frames, expected)
        assert clip.fps == pytest.approx(5.0) and clip.place.size == (32, 32)
    assert [clip.frames.mean() for clip in videos.clips(videos.places[2:3])] == [clips[2].frames.mean()]


def test_what_cannot_be_used_is_counted_and_said(make_videos, tmp_path, caplog):
    make_videos(tmp_path, {"good": 8, "short": 3, "cut": 60}, size=(64, 64))
    whole = (tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "broken.avi").write_bytes(b"no video")
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / ".hidden.mp4").write_bytes(whole)
    videos = VideoFolder(tmp_path, ClipProtocol(8, clips_per_video=None))
    used = [clip.name for clip in videos.clips()]
    assert used[-1] == "good" and videos.ignored == 2
    reasons = dict(videos.skipped)
    assert set(reasons) == {"broken", "cut", "short"}
    assert reasons["short"] == "too short: 3 frames, a clip spans 8" and "not a readable video" in reasons["broken"]
    assert all(f"skipped {tmp_path / name}" in caplog.text for name in ("broken.avi", "cut.mp4", "short.mp4"))


def test_same_stems_keep_their_suffix(make_videos, tmp_path):
    make_videos(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "a.mov").write_bytes((tmp_path / "a.mp4").read_bytes())
    assert VideoFolder(tmp_path, ClipProtocol(4)).names == ["a.mov", "a.mp4", "b"]


def test_folders_without_videos_are_explained(tmp_path):
    with pytest.raises(UserError, match="none: no such folder"):
        VideoFolder(tmp_path / "none", ClipProtocol(4))
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"no videos among 1 files.*\.mp4"):
        VideoFolder(tmp_path, ClipProtocol(4))
    with pytest.raises(UserError, match="at least 1"):
        ClipProtocol(4, stride=0)


def test_partners_are_found_by_name_and_the_others_reported(make_videos, folder, tmp_path, caplog):
    fake = VideoFolder(make_videos(tmp_path, {"sub/a": 4, "b": 4, "c": 4}), ClipProtocol(4))
    names, only_real, only_fake = pair(VideoFolder(folder, ClipProtocol(4)), fake)
    assert (names, only_real, only_fake) == (["b", "sub/a"], ["a"], ["c"])
    assert "left out 1 videos without a partner: a" in caplog.text
    assert "left out 1 videos without a partner: c" in caplog.text
    with pytest.raises(UserError, match=r"no video has a partner: x, .* and b, "):
        pair(VideoFolder(make_videos(tmp_path / "other", {"x": 4}), ClipProtocol(4)), fake)


def test_work_is_done_ahead_but_not_far():
    taken = []
    results = ahead(lambda item: item * item, (taken.append(item) or item for item in range(50)), most=3)
    assert [next(results), next(results)] == [0, 1]
    assert taken == [0, 1, 2, 3, 4]
    assert list(results) == [item * item for item in range(2, 50)]
