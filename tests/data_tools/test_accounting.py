"""Every second of video has one fate, and all fates add up."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_tools.accounting import KINDS, Accounts, Ledger
from data_tools.records import ClipPlan, ClipPoses, Clips, Poses, Probe, Shots, Span, Verdict, Verdicts
from data_tools.store import Failure, VideoFolder
from data_tools.survey import VideoState
from data_tools.table import clock, print_accounts
from data_tools.video_files import Source

FPS = 10.0
FOLDER = VideoFolder(Path("none"))


def probe(num_frames: int, digest: str = "a") -> Probe:
    return Probe(
        digest=digest, size_bytes=1, codec="h264", width=64, height=64, rotation=0, num_frames=num_frames, fps=FPS,
        seconds=num_frames / FPS, variable_rate=False,
    )  # fmt: skip


def sources(*paths: str, digest: str | None = "a") -> tuple[Source, ...]:
    return tuple(Source(path=path, digest=digest) for path in paths)


def judged(*fates: str, digest: str = "a", stride: int = 1) -> VideoState:
    """A video of 100 frames: 10 damaged, a shot of 20 too short, 70 in a shot with clips of 12 frames, one a fate."""
    plans = [
        ClipPlan(clip_id=f"{digest}-{i}", start=30 + 12 * i, num_frames=12 // stride, stride=stride, fps=FPS)
        for i in range(len(fates))
    ]
    lost = tuple((plan.clip_id, "damaged") for plan, fate in zip(plans, fates, strict=True) if fate == "lost")
    poses = [ClipPoses(clip_id=plan.clip_id, keypoints="k", measures="m") for plan in plans]
    verdicts = [
        Verdict(clip_id=plan.clip_id, broken=dict.fromkeys(fate.split(), "why"), values={}, reference_track=0)
        for plan, fate in zip(plans, fates, strict=True)
        if fate != "lost"
    ]
    return VideoState(
        sources(f"{digest}.mp4", digest=digest), FOLDER, probe=probe(100, digest),
        shots=Shots(shots=(Span(start=30, end=100),), damaged=(Span(start=0, end=10),), decoded_frames=90),
        clips=Clips(clips=tuple(plans), too_short=70 - 12 * len(plans)),
        poses=Poses(detector="d", detector_digest="e", clips=tuple(poses), failed=lost),
        verdicts=Verdicts(verdicts=tuple(verdicts)),
    )  # fmt: skip


def accounts(*states: VideoState) -> Accounts:
    ledger = Ledger()
    for state in states:
        ledger.add(state)
    return ledger.accounts(dict.fromkeys(ledger.kept_digests, "train"))


def rows(*states: VideoState) -> dict[str, tuple[int, int, float]]:
    closed = accounts(*states)
    assert sum(row.seconds for row in closed.rows) == pytest.approx(closed.seconds)
    return {f"{row.kind} {row.detail}".strip(): (row.files, row.clips, row.seconds) for row in closed.rows}


def test_all_parts_of_a_video_are_accounted_for():
    assert rows(judged("", "", "jitter", "lost")) == {
        "damaged": (1, 0, 1.0),
        "short_shot": (1, 0, 2.0),
        "left_over": (1, 0, 2.2),
        "detection": (1, 1, 1.2),
        "filtered jitter": (1, 1, 1.2),
        "kept train": (1, 2, 2.4),
    }


def test_frames_that_a_stride_passes_over_belong_to_their_clip():
    assert rows(judged("", stride=3))["kept train"] == (1, 1, 1.2)


def test_a_clip_counts_to_the_first_rule_that_it_breaks_and_all_are_listed():
    closed = accounts(judged("people jitter", "jitter", "people jitter motion"))
    filtered = {row.detail: (row.clips, row.clips_breaking) for row in closed.rows if row.kind == "filtered"}
    assert filtered == {"people": (2, 2), "jitter": (1, 3)}


def test_files_of_the_same_content_count_once():
    twice = VideoState(sources("a", "b", "c"), FOLDER, **{
        name: getattr(judged(""), name) for name in ("probe", "shots", "clips", "poses", "verdicts")
    })  # fmt: skip
    found = rows(twice)
    assert found["duplicate"] == (2, 0, 20.0) and found["kept train"] == (1, 1, 1.2)
    assert accounts(twice).files == 3 and accounts(twice).seconds == 30.0


def test_files_in_quarantine_count_whole_by_step_and_reason():
    def failed(step: str, what: str, length: Probe | None, *paths: str) -> VideoState:
        return VideoState(sources(*paths), FOLDER, Failure(what=what, remedy="none"), step, probe=length)

    states = [
        failed("probe", "not a readable video (no moov atom)", None, "a", "b"),
        failed("probe", "not a readable video (something else)", None, "c"),
        failed("shots", "not done within 60 s", probe(50), "d"),
        failed("shots", "not done within 1.5 s", probe(50), "e", "f"),
        VideoState(sources("g", digest=None), None, Failure(what="a link", remedy="none"), "listing"),
    ]
    assert rows(*states) == {
        "quarantined listing: a link": (1, 0, 0.0),
        "quarantined probe: not a readable video": (3, 0, 0.0),
        "quarantined shots: not done within N s": (3, 0, 15.0),
    }
    closed = accounts(*states)
    assert (closed.files, closed.files_of_unknown_length, closed.quarantined) == (7, 4, 7)


def test_lost_clips_are_in_the_quarantine_list_too():
    damaged, lost = judged("", "lost").quarantined()
    assert (lost.path, lost.clip_id, lost.reason) == ("a.mp4", "a-1", "damaged") and lost.remedy
    assert damaged.clip_id is None and damaged.remedy and "frames 0 to 9 (10 frames)" in damaged.reason
    assert accounts(judged("", "lost")).quarantined == 2


def test_what_is_not_done_yet_is_waiting():
    probed = VideoState(sources("a"), FOLDER, probe=probe(10))
    planned = VideoState(sources("b"), FOLDER, probe=probe(100), shots=judged().shots, clips=judged("").clips)
    assert rows(probed)["waiting"] == (1, 0, 1.0)
    assert rows(planned)["waiting"] == (1, 1, 1.2)
    ledger = Ledger()
    for state in (probed, planned, VideoState(sources("c"), FOLDER)):
        ledger.add(state)
    assert ledger.waiting == {"probe": 1, "shots": 1, "poses": 1}


def test_the_table_shows_every_row(capsys):
    closed = accounts(judged("", "people jitter"), judged("jitter", digest="b"))
    print_accounts(closed)
    printed = " ".join(capsys.readouterr().out.split())
    assert {row.kind for row in closed.rows} <= KINDS.keys()
    for text in ("damaged frames", "filtered: people", "filtered: jitter (broken by 2 clips", "kept: train", "20.0"):
        assert text in printed


def test_an_empty_data_set_is_said(capsys):
    print_accounts(accounts(judged("jitter")))
    assert "No clip was kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00.0"), (59.96, "0:01:00.0"), (36 * 3600 + 61.25, "36:01:01.2")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text
