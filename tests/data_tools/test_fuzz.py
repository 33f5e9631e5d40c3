"""Builds of hundreds of mutated videos: every file is used or listed with a reason, and the good ones are all there.

`LISA_FUZZ_CASES=5000 LISA_FUZZ_SEED=1 pytest tests/data_tools/test_fuzz.py` is a larger campaign of other cases.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data_tools.build import run_command
from data_tools.settings import BuildSettings
from lisa_video.config.load import load_settings
from lisa_video.data.manifest import iter_records
from lisa_video.data.video_io import read_frames

CASES, SEED = int(os.environ.get("LISA_FUZZ_CASES", "200")), int(os.environ.get("LISA_FUZZ_SEED", "0"))
NO_FILTERS = Path(__file__).parents[2] / "configs/data/filters_none.yaml"
SETTINGS = [
    "poses.detector.kind=keypoint_net", "clips.min_frames=2", "engine.workers=1", "probe.timeout_s=10",
    "shots.timeout_s=10", "poses.timeout_s=60", "shots.min_shot_s=0.1",
]  # fmt: skip

Random = np.random.Generator
Mutation = Callable[[bytearray, Random], None]


def flip_bits(data: bytearray, random: Random) -> None:
    for place in random.integers(len(data), size=random.integers(1, 20)):
        data[place] ^= 1 << int(random.integers(8))


def wipe(data: bytearray, random: Random) -> None:
    start, length = _span(data, random)
    data[start : start + length] = random.choice([bytes(length), random.bytes(length)])


def drop(data: bytearray, random: Random) -> None:
    start, length = _span(data, random)
    del data[start : start + length]


def repeat(data: bytearray, random: Random) -> None:
    start, length = _span(data, random)
    data[start:start] = data[start : start + length]


def cut_off(data: bytearray, random: Random) -> None:
    del data[int(random.integers(len(data))) :]


def lie(data: bytearray, random: Random) -> None:
    """Put extreme numbers into the index, which stands first: sizes, counts, durations, widths."""
    for place in random.integers(data.index(b"mdat"), size=random.integers(1, 6)):
        number = random.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFF, 0x80000000, int(random.integers(2**32))])
        data[place : place + 4] = int(number).to_bytes(4, "big")


def _span(data: bytearray, random: Random) -> tuple[int, int]:
    return int(random.integers(len(data))), int(2 ** random.uniform(0, np.log2(len(data) / 2)))


MUTATIONS: tuple[Mutation, ...] = (flip_bits, wipe, drop, repeat, cut_off, lie)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory, demo_clips, encode_video) -> SimpleNamespace:
    """A folder of a few good videos and `CASES` mutated ones, and the build of it."""
    folder = tmp_path_factory.mktemp("fuzzed")
    videos = folder / "videos"
    videos.mkdir()
    frames = np.concatenate([read_frames(clip, np.arange(8)) for clip in demo_clips[:3]])
    encode_video(videos / "good 0.mp4", frames, g="8", bf="2")
    shutil.copy(demo_clips[3], videos / "good 1.mp4")
    encode_video(videos / "good 2.mp4", frames[:8], pts=np.cumsum([1, 1, 1, 3] * 2))
    originals = [path.read_bytes() for path in sorted(videos.iterdir())]
    for case in range(CASES):
        random = np.random.default_rng([SEED, case])
        data = bytearray(originals[case % len(originals)])
        for _ in range(random.integers(1, 3)):
            if len(data) > 16 and (b"mdat" in data):
                MUTATIONS[case // len(originals) % len(MUTATIONS)](data, random)
        (videos / f"mutant {case:05d}.mp4").write_bytes(data)
    settings = load_settings(BuildSettings, NO_FILTERS, SETTINGS)
    done = run_command("build", folder / "out", settings, videos=videos, progress=False)
    return SimpleNamespace(videos=videos, out=folder / "out", done=done, settings=settings)


def test_every_file_is_used_or_listed_with_its_reason(fuzzed):
    lines = [json.loads(line) for line in (fuzzed.out / "quarantine.jsonl").read_text().splitlines()]
    assert all(line["reason"] and line["remedy"] for line in lines) and len(lines) == fuzzed.done.quarantined
    summary = fuzzed.done.accounts
    assert summary.files == CASES + 3 and sum(row.files for row in summary.rows) >= CASES + 3
    assert sum(row.seconds for row in summary.rows) == pytest.approx(summary.seconds, rel=1e-6)
    used = {record.source for record in iter_records(fuzzed.out / "manifest.jsonl")}
    listed = {line["path"] for line in lines}
    duplicates = sum(row.files for row in summary.rows if row.kind == "duplicate")
    short = sum(row.files for row in summary.rows if row.kind in ("short_shot", "left_over"))
    unnamed = {path.name for path in fuzzed.videos.iterdir()} - used - listed
    assert len(unnamed) <= duplicates + short, unnamed
    assert used & {path for path in listed if path.startswith("mutant")}, "no file was saved in part"


def test_nothing_good_is_lost_and_all_that_is_kept_can_be_read(fuzzed):
    records = list(iter_records(fuzzed.out / "manifest.jsonl"))
    assert {record.source for record in records} >= {f"good {number}.mp4" for number in range(3)}
    for record in records:
        numbers = record.start_frame + record.frame_stride * np.arange(record.num_frames)
        frames = read_frames(fuzzed.out / record.video, numbers)
        assert frames.shape == (record.num_frames, record.height, record.width, 3)


def test_the_second_time_nothing_is_done(fuzzed):
    again = run_command("build", fuzzed.out, fuzzed.settings, videos=fuzzed.videos, progress=False)
    assert not any(again.tasks.values()) and again.accounts == fuzzed.done.accounts
