"""Pairs of videos: names, lengths, sizes, rates, and what cannot be used."""

from pathlib import Path

import numpy as np
import pytest

from eval.clip_pairs import find_pairs
from lisa_video.data.video_io import write_video
from lisa_video.errors import UserError


def video(path: Path, frames: int = 6, size: tuple[int, int] = (32, 48), fps: float = 10.0, level: int = 100) -> None:
    """A grey clip whose frames get brighter by 10 levels each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clip = (
        np.zeros((frames, *size, 3), np.uint8) + (level + 10 * np.arange(frames, dtype=np.uint8))[:, None, None, None]
    )
    write_video(path, clip, fps, crf=0)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Real and generated: two good pairs, one without a partner on each side."""
    for side in ("real", "fake"):
        video(tmp_path / side / "a.mp4")
        video(tmp_path / side / "deep" / "b.mp4")
    video(tmp_path / "real" / "only.mp4")
    video(tmp_path / "fake" / "alone.mp4")
    return tmp_path / "real", tmp_path / "fake"


def test_pairs_are_found_by_name(folders):
    """Sub-folders count; those without a partner are said."""
    found = find_pairs(folders[1], folders[0])
    assert [one.name for one in found.pairs] == ["a", "deep/b"]
    assert (found.pairs[0].num_frames, found.pairs[0].fps, found.pairs[0].size) == (6, 10.0, (32, 48))
    assert found.notes == [
        "1 real videos have no partner and were left out", "1 generated videos have no partner and were left out",
    ]  # fmt: skip


def test_without_real_videos_all_generated_ones_are_taken(folders):
    """Three of them; only the first frames if asked, or every second."""
    found = find_pairs(folders[1], max_frames=2, stride=2)
    assert [one.name for one in found.pairs] == ["a", "alone", "deep/b"]
    assert [one.num_frames for one in found.pairs] == [2, 2, 2] and found.pairs[0].fps == 5.0
    (frames,) = found.pairs[0].generated_frames()
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [100, 120], atol=2)
    assert find_pairs(folders[1], stride=4).pairs[0].num_frames == 2


def test_common_frames_are_compared_at_the_generated_size(tmp_path):
    """A longer, larger, faster real clip of another aspect: first 4 frames, cropped, and three notes."""
    video(tmp_path / "real" / "a.mp4", frames=9, size=(64, 128), fps=25.0)
    video(tmp_path / "fake" / "a.mp4", frames=4)
    found = find_pairs(tmp_path / "fake", tmp_path / "real")
    (real,), (generated,) = found.pairs[0].real_frames(), found.pairs[0].generated_frames()
    assert real.shape == generated.shape == (4, 32, 48, 3)
    np.testing.assert_allclose(real.mean(axis=(1, 2, 3)), [100, 110, 120, 130], atol=2)
    size, length, rate = found.notes
    assert "differ in size" in size and "1 of them lose their edges" in size
    assert "differ in length" in length and "by number, not by time" in rate
    assert found.protocol["frames"].startswith("4 to 4 a clip") and found.protocol["sizes"] == ["48 x 32"]


def test_bad_videos_are_skipped_and_counted(folders, tmp_path):
    """An unreadable file on either side."""
    (folders[0] / "a.mp4").write_bytes(b"no video")
    found = find_pairs(folders[1], folders[0])
    assert [one.name for one in found.pairs] == ["deep/b"]
    assert [name for name, _ in found.skipped] == ["a"]
    (folders[1] / "deep" / "b.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="none of 2 videos can be read"):
        find_pairs(folders[1], folders[0])


def test_a_folder_against_itself_is_said(folders):
    """It is not an error: it is how one tries out a metric."""
    assert "every clip is compared with itself" in find_pairs(folders[0], folders[0]).notes[0]
