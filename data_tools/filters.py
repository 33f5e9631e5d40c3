"""Judging clips by the rules, and counting what each rule removed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from data_tools.evidence import Evidence
from data_tools.measures import FrameMeasures
from data_tools.records import ClipPlan, Probe, Verdict
from data_tools.rules import RULES, Rule
from data_tools.settings import FilterSettings, Limits
from lisa_video.pose.keypoints import Keypoints


def judge(
    plan: ClipPlan, probe: Probe, keypoints: Keypoints, measures: FrameMeasures, settings: FilterSettings
) -> Verdict:
    """Measure a clip by all rules, and say which it breaks; a pure function, without pixels.

    Args:
        plan: F = num_frames.
        probe: of the video.
        keypoints: F frames, pixels of the video's frames.
        measures: F frames.
        settings: limits of the rules; a rule without limits is measured all the same.

    Returns:
        The verdict, its rules in the order of `RULES`.
    """
    if not plan.num_frames == keypoints.num_frames == measures.num_frames:
        raise ValueError(
            f"a clip of {plan.num_frames} frames with {keypoints.num_frames} frames of keypoints and "
            f"{measures.num_frames} of measures"
        )
    evidence = Evidence(plan, probe, keypoints, measures)
    values = {rule.name: _number(rule.measure(evidence)) for rule in RULES}
    broken = {}
    for rule in RULES:
        limits: Limits | None = getattr(settings, rule.name)
        if limits is not None and (text := _against(values[rule.name], limits, rule)):
            broken[rule.name] = text
    return Verdict(clip_id=plan.clip_id, broken=broken, values=values, reference_track=evidence.reference_track)


class RuleCount(NamedTuple):
    """What a rule did to a set of clips.

    Attributes:
        rule: its name.
        broken: clips that break it.
        removed: clips of which it is the first broken rule; these sum up to the dropped clips.
        alone: clips that break no other rule: what would be won by turning it off.
    """

    rule: str
    broken: int
    removed: int
    alone: int


def count_reasons(verdicts: Iterable[Verdict]) -> list[RuleCount]:
    """Count, for each rule in the order of `RULES`, the clips that it concerns; rules that nobody breaks are zeros."""
    counts = {rule.name: [0, 0, 0] for rule in RULES}
    for verdict in verdicts:
        for place, name in enumerate(name for name in counts if name in verdict.broken):
            counts[name][0] += 1
            counts[name][1] += place == 0
            counts[name][2] += len(verdict.broken) == 1
    return [RuleCount(name, *numbers) for name, numbers in counts.items()]


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _against(value: float | None, limits: Limits, rule: Rule) -> str:
    """What was measured against what, if a limit is broken; else nothing."""
    if value is None:
        return ""
    if limits.min is not None and value < limits.min:
        return f"{value:.3g} {rule.unit}, at least {limits.min:g} wanted"
    if limits.max is not None and value > limits.max:
        return f"{value:.3g} {rule.unit}, at most {limits.max:g} wanted"
    return ""
