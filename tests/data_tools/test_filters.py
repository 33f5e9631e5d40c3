"""Judging clips: both sides of every limit, the order of the reasons, the counts, and the preset files."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from data_tools.filters import count_reasons, judge
from data_tools.measures import FrameMeasurer
from data_tools.records import ClipPlan, Probe, Verdict
from data_tools.rules import RULES
from data_tools.settings import BuildSettings, FilterSettings, Limits
from lisa_video.data.manifest import ClipRecord, iter_records
from lisa_video.data.video_io import read_frames
from lisa_video.pose.keypoints import Keypoints, load_keypoints

PRESETS = Path(__file__).parents[2] / "configs" / "data"
OFF = FilterSettings(**{rule.name: None for rule in RULES})


def judged(manifest: Path, record: ClipRecord, settings: FilterSettings, poses: Keypoints | None = None) -> Verdict:
    measurer = FrameMeasurer()
    measurer.update(read_frames(manifest.parent / record.video, np.arange(record.num_frames)))
    return judge(
        ClipPlan(clip_id=record.clip_id, start=0, num_frames=record.num_frames, stride=1, fps=record.fps),
        Probe(
            digest=record.source_digest, size_bytes=1, codec="h264", width=record.width, height=record.height,
            rotation=0, num_frames=record.num_frames, fps=record.fps, seconds=1, variable_rate=False,
        ),
        load_keypoints(manifest.parent / record.keypoints) if poses is None else poses,
        measurer.result(),
        settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def record(tiny_manifest) -> ClipRecord:
    return next(iter_records(tiny_manifest))


@pytest.fixture(scope="module")
def values(tiny_manifest, record) -> dict[str, float | None]:
    return judged(tiny_manifest, record, OFF).values


def test_rules_that_are_off_measure_and_break_nothing(tiny_manifest, record, values):
    verdict = judged(tiny_manifest, record, OFF)
    assert list(values) == [rule.name for rule in RULES] and not verdict.broken
    missing = {name for name, value in values.items() if value is None}
    assert missing == {"hand_score", "face_score", "fixed_text", "sudden_text"}  # COCO-17, and eight frames
    assert verdict.clip_id == record.clip_id and verdict.reference_track == 0


@pytest.mark.parametrize("name", [rule.name for rule in RULES])
def test_both_sides_of_every_limit(name, tiny_manifest, record, values):
    value = values[name]
    if value is None:
        verdict = judged(tiny_manifest, record, OFF.model_copy(update={name: Limits(min=1e9)}))
        assert not verdict.broken  # what cannot be measured is not held against a clip
        return
    step = max(abs(value), 1) * 1e-6
    for limits, breaks in (
        (Limits(min=value), False),
        (Limits(max=value), False),
        (Limits(min=value - step, max=value + step), False),
        (Limits(min=value + step), True),
        (Limits(max=value - step), True),
    ):
        verdict = judged(tiny_manifest, record, OFF.model_copy(update={name: limits}))
        assert list(verdict.broken) == [name] * breaks
        if breaks:
            wanted = "at least" if limits.min is not None else "at most"
            assert verdict.broken[name].startswith(f"{value:.3g} ") and wanted in verdict.broken[name]


def test_reasons_come_in_the_order_of_the_rules(tiny_manifest, record):
    empty = load_keypoints(tiny_manifest.parent / record.keypoints)
    nobody = Keypoints(np.full_like(empty.xy, np.nan), np.zeros_like(empty.score), empty.track_id)
    settings = FilterSettings(short_side=Limits(min=64), aspect=Limits(min=1.5))
    verdict = judged(tiny_manifest, record, settings, nobody)
    assert list(verdict.broken) == ["people", "short_side", "aspect"] and verdict.reference_track is None
    assert verdict.broken["people"] == "0 people in view, at least 1 wanted"


def test_counts_of_frames_must_agree(tiny_manifest, record):
    poses = load_keypoints(tiny_manifest.parent / record.keypoints).frames(slice(0, 5))
    with pytest.raises(ValueError, match="8 frames with 5 frames of keypoints"):
        judged(tiny_manifest, record, OFF, poses)


def test_demo_clips_are_kept_by_default_but_for_their_size(tiny_manifest):
    settings = FilterSettings(short_side=Limits(min=32))
    verdicts = [judged(tiny_manifest, record, settings) for record in iter_records(tiny_manifest)]
    assert len(verdicts) == 12 and not [verdict.broken for verdict in verdicts if verdict.broken]


def test_every_dropped_clip_is_counted_once_as_removed():
    def verdict(*broken: str) -> Verdict:
        return Verdict(clip_id="a", broken=dict.fromkeys(broken, "text"), values={}, reference_track=None)

    counts = {
        count.rule: count
        for count in count_reasons(
            [verdict(), verdict("cut", "people"), verdict("cut"), verdict("seen", "cut", "jitter")]
        )
    }
    assert list(counts) == [rule.name for rule in RULES]
    assert counts["people"][1:] == (1, 1, 0)
    assert counts["cut"][1:] == (3, 1, 1)
    assert counts["seen"][1:] == (1, 1, 0)
    assert counts["jitter"][1:] == (1, 0, 0)
    assert sum(count.removed for count in counts.values()) == 3


def preset(name: str) -> FilterSettings:
    text = (PRESETS / f"filters_{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    values = yaml.safe_load(text)
    assert list(values) == ["filters"] and list(values["filters"]) == [rule.name for rule in RULES]
    return BuildSettings.model_validate(values).filters


def test_presets_are_config_files_of_a_data_build():
    assert preset("default") == FilterSettings()
    assert preset("none") == OFF


def test_strict_is_nowhere_more_lenient_than_default():
    strict, default = preset("strict"), FilterSettings()
    for rule in RULES:
        harder, softer = getattr(strict, rule.name), getattr(default, rule.name)
        assert harder is not None
        if softer is not None and softer.min is not None:
            assert harder.min >= softer.min
        if softer is not None and softer.max is not None:
            assert harder.max <= softer.max


@pytest.mark.parametrize("limits", [{}, {"min": 2, "max": 1}, {"least": 1}])
def test_limits_that_mean_nothing_are_refused(limits):
    with pytest.raises(ValidationError):
        FilterSettings.model_validate({"cut": limits})
