"""From records to the data set: splits, paths, and what is left out. No video is decoded here."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from data_tools.manifest import write_data_set
from data_tools.records import ClipPlan, ClipPoses, Clips, Poses, Probe, Shots, Span, Verdict, Verdicts
from data_tools.settings import BuildSettings, ManifestSettings
from data_tools.splits import assign_splits
from data_tools.steps import step_keys
from data_tools.store import Failure, Store
from data_tools.survey import survey
from data_tools.video_files import digest_source, find_files
from lisa_video.data.manifest import Manifest, iter_records, read_header
from lisa_video.errors import UserError

KEYS = step_keys(BuildSettings())


def digests(count: int) -> list[str]:
    return ["sha256:" + hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]


class Bench:
    """A folder of files with made-up records: two clips each, of which the second is filtered away."""

    def __init__(self, folder: Path) -> None:
        self.root, self.out = folder / "videos", folder / "data set"
        self.root.mkdir()
        self.out.mkdir()
        self.store = Store(self.out)

    def add(self, path: str, *, until: str = "verdicts") -> str:
        """A new file, with records up to a step; returns its digest."""
        (self.root / path).parent.mkdir(exist_ok=True)
        (self.root / path).write_text(path.replace("copy", "original"))
        digest = next(source.digest for source in self.sources() if source.path == path)
        plans = [ClipPlan(clip_id=f"{digest[7:23]}-{i}", start=8 * i, num_frames=8, stride=2, fps=10) for i in (0, 2)]
        poses = [ClipPoses(clip_id=plan.clip_id, keypoints=f"poses/{plan.start}.npz", measures="m") for plan in plans]
        records = {
            "probe": Probe(
                digest=digest, size_bytes=1, codec="h264", width=64, height=48, rotation=0, num_frames=32, fps=10,
                seconds=3.2, variable_rate=False,
            ),
            "shots": Shots(shots=(Span(start=0, end=32),), damaged=(), decoded_frames=32),
            "clips": Clips(clips=tuple(plans), too_short=0),
            "poses": Poses(detector="finder", detector_digest="sha256:0", clips=tuple(poses)),
            "verdicts": Verdicts(
                verdicts=(
                    Verdict(clip_id=plans[0].clip_id, broken={}, values={}, reference_track=3),
                    Verdict(clip_id=plans[1].clip_id, broken={"jitter": "much"}, values={}, reference_track=None),
                )
            ),
        }  # fmt: skip
        for step, record in records.items():
            self.store.video(digest).write(step, KEYS[step], 0.0, record)
            if step == until:
                break
        return digest

    def sources(self):
        return [digest_source(self.root, source) for source in find_files(self.root, ()).files]

    def write(self, sources=None, **settings: float) -> Path:
        sources = self.sources() if sources is None else sources
        manifest = ManifestSettings(**{"val_fraction": 0.5, **settings})
        write_data_set(self.out, self.root, lambda: survey(self.store, self.root, sources, KEYS), manifest, KEYS)
        return self.out / "manifest.jsonl"


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


def test_kept_clips_become_records(bench):
    digest = bench.add("inner/line\nbreak é.mp4")
    (record,) = iter_records(bench.write())
    assert record.clip_id == f"{digest[7:23]}-0" and record.source_digest == digest
    assert record.video == "../videos/inner/line\nbreak é.mp4" and record.source == "inner/line\nbreak é.mp4"
    assert record.keypoints == f"videos/{digest[7:9]}/{digest[7:]}/poses/0.npz"
    assert (record.start_frame, record.num_frames, record.frame_stride, record.fps) == (0, 8, 2, 10.0)
    assert (record.width, record.height) == (64, 48)
    assert record.attributes == {"detector": "finder", "reference_track": "3"}


def test_paths_lead_from_the_manifest_to_the_files(bench):
    bench.add("a.mp4")
    bench.add("b.mp4")
    for split in ("train", "val"):
        manifest = Manifest(bench.write(), split)
        assert manifest.resolve(manifest[0].video).read_text() == manifest[0].source


def test_the_header_says_what_made_it(bench):
    for name in "abcdef":
        bench.add(f"{name}.mp4")
    header = read_header(bench.write())
    assert header["tool"] == "lisa-video data build" and header["tool_version"]
    splits = Counter(record.split for record in iter_records(bench.out / "manifest.jsonl"))
    assert header["clips"] == header["sources"] == dict(splits)
    assert header["settings"] != read_header(bench.write(seed=1))["settings"]


def test_the_same_again_touches_nothing(bench):
    bench.add("a.mp4")
    bench.add("b.mp4")
    bench.write()
    before = {path: path.stat().st_mtime_ns for path in bench.out.iterdir()}
    bench.write()
    assert before == {path: path.stat().st_mtime_ns for path in bench.out.iterdir()}


def test_one_of_equal_files_is_taken_and_the_other_takes_its_place(bench):
    bench.add("a copy.mp4")
    bench.add("a original.mp4")
    sources = bench.sources()
    assert [record.source for record in iter_records(bench.write(sources))] == ["a copy.mp4"]
    (bench.root / "a copy.mp4").unlink()
    assert [record.source for record in iter_records(bench.write(sources))] == ["a original.mp4"]


def test_files_that_changed_since_they_were_listed_are_left_out_and_said(bench):
    bench.add("a.mp4")
    bench.add("b.mp4")
    sources = bench.sources()
    (bench.root / "a.mp4").write_text("changed")
    assert [record.source for record in iter_records(bench.write(sources))] == ["b.mp4"]
    (line,) = map(json.loads, (bench.out / "quarantine.jsonl").read_text().splitlines())
    assert line["path"] == "a.mp4" and "changed after it was listed" in line["reason"] and line["remedy"]


def test_failures_are_listed_by_path_with_reason_and_remedy(bench):
    for name in ("b.mp4", "a copy.mp4", "a original.mp4"):
        digest = bench.add(name)
        failure = Failure(what="no end", remedy="cut it")
        bench.store.video(digest).write("shots", KEYS["shots"], 0.0, failure)
    bench.write()
    lines = [json.loads(line) for line in (bench.out / "quarantine.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == ["a copy.mp4", "a original.mp4", "b.mp4"]
    assert {(line["step"], line["reason"], line["remedy"]) for line in lines} == {("shots", "no end", "cut it")}


@pytest.mark.parametrize(("until", "command"), [("probe", "data shots OUT"), ("clips", "data poses OUT")])
def test_a_missing_step_is_named_with_its_command(bench, until, command):
    bench.add("a.mp4")
    bench.add("b.mp4", until=until)
    with pytest.raises(UserError, match=rf"1 videos were not through.*{command}"):
        bench.write()
    assert not (bench.out / "manifest.jsonl").exists()


def test_splits_follow_the_fraction_and_more_videos_move_none(tmp_path):
    settings = ManifestSettings(val_fraction=0.2)
    few, many = (assign_splits(tmp_path, digests(count), settings) for count in (200, 1000))
    assert few == {digest: many[digest] for digest in few}
    assert sum(split == "val" for split in many.values()) == pytest.approx(200, abs=40)
    assert many != assign_splits(tmp_path, digests(1000), ManifestSettings(val_fraction=0.2, seed=1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fraction", [0.001, 0.999])
@pytest.mark.parametrize("count", [2, 3, 20])
def test_tiny_sets_have_both_splits_and_growing_moves_none(tmp_path, fraction, count):
    settings = ManifestSettings(val_fraction=fraction)
    few = assign_splits(tmp_path, digests(count), settings)
    assert Counter(few.values())[min("val", "train", key=lambda s: list(few.values()).count(s))] == 1
    many = assign_splits(tmp_path, digests(count + 500), settings)
    assert few == {digest: many[digest] for digest in few}


@pytest.mark.parametrize(("fraction", "split"), [(0.0, "train"), (1.0, "val")])
def test_a_fraction_of_nothing_or_all_is_taken_at_its_word(tmp_path, fraction, split):
    assert set(assign_splits(tmp_path, digests(9), ManifestSettings(val_fraction=fraction)).values()) == {split}


def test_a_single_video_is_not_split(tmp_path):
    assert len(assign_splits(tmp_path, digests(1), ManifestSettings())) == 1 and not list(tmp_path.iterdir())
