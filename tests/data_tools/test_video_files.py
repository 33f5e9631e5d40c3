"""Looking for files, and remembering their digests."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from data_tools.sources import SourceList
from data_tools.video_files import Problem, Source, digest_source, find_files
from lisa_video.data.manifest import file_digest
from lisa_video.errors import UserError


@pytest.fixture
def videos(tmp_path) -> Path:
    folder = tmp_path / "videos"
    (folder / "inner").mkdir(parents=True)
    (folder / "b.mp4").write_bytes(b"bb")
    (folder / "inner/a.mp4").write_bytes(b"a")
    return folder


def paths(folder: Path, ignore: tuple[str, ...] = (".*",)) -> list[str]:
    return [source.path for source in find_files(folder, ignore).files if source.problem is None]


def problems(folder: Path) -> dict[str, str]:
    found = find_files(folder, ()).files
    return {source.path: source.problem.what for source in found if source.problem is not None}


def test_all_files_are_found_in_order_whatever_they_are_called(videos):
    names = ["with space.mp4", 'it\'s "q".mp4', "line\nbreak.mp4", "видео 影片.mp4", "UPPER.MP4", "no_suffix", "c.txt"]
    for name in names:
        (videos / name).write_bytes(b"x")
    assert paths(videos) == sorted([*names, "b.mp4", "inner/a.mp4"])


def test_ignored_names_are_counted(videos):
    (videos / ".hidden").mkdir()
    (videos / ".hidden/c.mp4").touch()
    (videos / "b.json").touch()
    listing = find_files(videos, (".*", "*.json"))
    assert [source.path for source in listing.files] == ["b.mp4", "inner/a.mp4"] and listing.ignored == 2


def test_links_are_followed_and_each_folder_is_read_once(videos, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "c.mp4").touch()
    (other / "back").symlink_to(videos)
    (videos / "linked").symlink_to(other)
    (videos / "again").symlink_to(videos / "inner")
    (videos / "d.mp4").symlink_to(other / "c.mp4")
    assert paths(videos) == ["b.mp4", "d.mp4", "inner/a.mp4", "linked/c.mp4"] and not problems(videos)


def test_what_is_no_file_is_named(videos):
    (videos / "gone.mp4").symlink_to(videos / "nowhere.mp4")
    (videos / "loop.mp4").symlink_to(videos / "loop.mp4")
    (videos / "inner/up").symlink_to(videos)
    os.mkfifo(videos / "pipe.mp4")
    (videos / os.fsdecode(b"caf\xe9.mp4")).touch()
    assert problems(videos) == {
        "gone.mp4": "a link to a file that does not exist",
        "loop.mp4": "the file cannot be looked at (Too many levels of symbolic links)",
        "inner/up": "a link back to a folder above it",
        "pipe.mp4": "not a regular file",
        "caf\\xe9.mp4": "the name is not valid Unicode",
    }
    assert paths(videos) == ["b.mp4", "inner/a.mp4"]


def test_outputs_of_builds_are_passed_over(videos):
    out = videos / "out"
    out.mkdir()
    SourceList(out).create()
    (out / "x.mp4").touch()
    listing = find_files(videos, ())
    assert [source.path for source in listing.files] == ["b.mp4", "inner/a.mp4"] and listing.outputs == ["out"]
    with pytest.raises(UserError, match="output of a data build"):
        find_files(out, ())


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(UserError, match="no such folder of videos"):
        find_files(tmp_path / "none", ())


def test_a_file_that_cannot_be_read_is_a_problem_of_the_file(videos):
    (videos / "memory.mp4").symlink_to("/proc/self/mem")  # can be opened, cannot be read, not even by root
    (source,) = [source for source in find_files(videos, ()).files if source.path == "memory.mp4"]
    found = digest_source(videos, source)
    assert found.digest is None and "cannot be read" in found.problem.what and found.problem.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permissions_are_a_problem_of_the_file(videos):
    (videos / "b.mp4").chmod(0)
    (source, _) = find_files(videos, ()).files
    assert "Permission denied" in digest_source(videos, source).problem.what


def test_a_file_that_grows_meanwhile_is_left_for_later(videos):
    (source, _) = find_files(videos, ()).files
    (videos / "b.mp4").write_bytes(b"more")
    assert "changed while it was read" in digest_source(videos, source).problem.what


class Listed:
    """A source list that is brought up to date, and notes which digests were taken."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.folder, self.list, self.taken = folder, SourceList(out), []

    def update(self, retry: bool = False) -> list[str]:
        def digests(new: list[Source]):
            for source in new:
                self.taken.append(source.path)
                yield digest_source(self.folder, source)

        self.taken.clear()
        return self.list.update(self.folder, find_files(self.folder, ()).files, digests, retry=retry)


@pytest.fixture
def listed(videos, tmp_path) -> Listed:
    (tmp_path / "out").mkdir()
    listed = Listed(videos, tmp_path / "out")
    listed.update()
    return listed


def test_digests_are_taken_once(listed, videos, tmp_path):
    assert listed.taken == ["b.mp4", "inner/a.mp4"]
    written = (tmp_path / "out/sources.jsonl").stat()
    assert listed.update() == [] and listed.taken == []
    assert (tmp_path / "out/sources.jsonl").stat().st_mtime_ns == written.st_mtime_ns
    root, sources = listed.list.load()
    assert root == videos and [source.digest for source in sources] == [
        file_digest(videos / name) for name in ("b.mp4", "inner/a.mp4")
    ]


def test_new_and_changed_files_only_are_read(listed, videos):
    (videos / "c.mp4").write_bytes(b"c")
    (videos / "inner/a.mp4").write_bytes(b"changed")
    listed.update()
    assert listed.taken == ["c.mp4", "inner/a.mp4"]


def test_files_that_are_gone_are_named(listed, videos):
    (videos / "b.mp4").unlink()
    assert listed.update() == ["b.mp4"] and [source.path for source in listed.list.load()[1]] == ["inner/a.mp4"]
    assert listed.update() == []


def test_unreadable_files_are_tried_again_when_asked_or_changed(listed, videos, tmp_path):
    found = (videos / "b.mp4").stat()
    problem = Problem(what="cannot be read", remedy="mend it")
    broken = Source(path="b.mp4", size=2, mtime_ns=found.st_mtime_ns, ctime_ns=found.st_ctime_ns, problem=problem)
    with open(tmp_path / "out/sources.jsonl", "a") as file:
        file.write(broken.model_dump_json() + "\n")
    listed.update()
    assert listed.taken == [] and listed.list.load()[1][0].problem == problem
    listed.update(retry=True)
    assert listed.taken == ["b.mp4"] and listed.list.load()[1][0].problem is None
    with open(tmp_path / "out/sources.jsonl", "a") as file:
        file.write(broken.model_dump_json() + "\n")
    (videos / "b.mp4").chmod(0o600)
    listed.update()
    assert listed.taken == ["b.mp4"]


def test_a_killed_listing_keeps_what_it_has_and_is_not_taken_for_complete(listed, videos, tmp_path):
    path = tmp_path / "out/sources.jsonl"
    header, first, second = path.read_text().splitlines(keepends=True)
    unfinished = json.dumps({**json.loads(header), "complete": False}) + "\n"
    path.write_text(unfinished + first + second[:20])
    with pytest.raises(UserError, match=r"not to the end.*data probe"):
        listed.list.load()
    listed.update()
    assert listed.taken == ["inner/a.mp4"] and path.read_text() == header + first + second


def test_the_folder_of_the_videos_may_move_with_the_output(listed, tmp_path):
    (tmp_path / "moved").mkdir()
    for name in ("videos", "out"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert SourceList(tmp_path / "moved/out").load()[0] == tmp_path / "moved/videos"
