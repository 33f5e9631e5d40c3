"""From the findings on single clips to numbers of the whole data set, and to the clips that are worth a look."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from data_tools.doctor.findings import CHECKS, HEAT_CELLS, ClipFindings, Problem
from data_tools.doctor.words import counted
from data_tools.filters import RuleCount, count_reasons
from data_tools.records import Verdict
from data_tools.rules import RULES
from data_tools.settings import FilterSettings, Limits
from lisa_video.data.manifest import ClipRecord

QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


class RuleSummary(NamedTuple):
    """A rule over all clips.

    Attributes:
        name: of the rule.
        limits: at hand; None: off.
        values: of the clips on which it could be measured, in no order.
        quantiles: of these values, at `QUANTILES`; empty without values.
        counts: of clips that break it.
    """

    name: str
    limits: Limits | None
    values: np.ndarray
    quantiles: tuple[float, ...]
    counts: RuleCount


@dataclass(frozen=True)
class Summary:
    """The data set.

    Attributes:
        clips: in the order of the manifest.
        findings: clip id -> findings; of clips with the same name, the last one's.
        problems: all, in the order of `CHECKS`.
        joints: counts of visible joints over the frame, all clips together.
    """

    clips: Sequence[ClipRecord]
    findings: Mapping[str, ClipFindings]
    problems: Sequence[Problem]
    joints: Int[np.ndarray, "cells cells"]

    @property
    def sick_clips(self) -> int:
        """Clips with a problem of their own."""
        return len({problem.clip_id for problem in self.problems if problem.clip_id is not None})

    @property
    def seconds(self) -> float:
        """Length of all clips."""
        return sum(clip.num_frames / clip.clip_fps for clip in self.clips)

    def rules(self, limits: FilterSettings) -> list[RuleSummary]:
        """All rules over the clips that could be judged, in order."""
        judged = [found for found in self.findings.values() if found.values]
        counts = count_reasons(
            Verdict(clip_id=found.clip_id, broken=found.broken, values=found.values, reference_track=None)
            for found in judged
        )
        summaries = []
        for rule, count in zip(RULES, counts, strict=True):
            values = np.array([v for found in judged if (v := found.values[rule.name]) is not None], np.float64)
            quantiles = tuple(np.quantile(values, QUANTILES).tolist()) if len(values) else ()
            summaries.append(RuleSummary(rule.name, getattr(limits, rule.name), values, quantiles, count))
        return summaries


def summarise(clips: Sequence[ClipRecord], findings: Iterable[ClipFindings], problems: Iterable[Problem]) -> Summary:
    """Gather the findings, consumed as a stream.

    Args:
        clips: of the manifest.
        findings: of the clips, in any order.
        problems: of the data set as a whole.
    """
    kept: dict[str, ClipFindings] = {}
    joints = np.zeros((HEAT_CELLS, HEAT_CELLS), np.int64)
    found = list(problems)
    for one in findings:
        if one.joints is not None:
            joints += one.joints
        found += one.problems
        kept[one.clip_id] = one
    order = list(CHECKS)
    found.sort(
        key=lambda problem: (order.index(problem.check), problem.clip_id or "", problem.where or "", problem.what)
    )
    return Summary(clips, kept, found, joints)


def worst_clips(summary: Summary, limits: FilterSettings, count: int) -> dict[str, list[tuple[str, float]]]:
    """Rule -> (clip id, value) of the clips that come nearest to its limits or lie beyond, the worst first.

    Rules without limits, at hand or by default, have no bad end; rules by which no clip differs from another have no
    worst clip.
    """
    worst = {}
    for rule in RULES:
        bounds: Limits | None = getattr(limits, rule.name) or getattr(FilterSettings(), rule.name)
        values = {
            name: value
            for name, found in summary.findings.items()
            if (value := found.values.get(rule.name)) is not None
        }
        if bounds is None or len(set(values.values())) < 2:
            continue

        def badness(value: float, bounds: Limits = bounds) -> float:
            return max(_beyond(bounds.min, value, -1), _beyond(bounds.max, value, 1))

        ranked = sorted(values, key=lambda name: (-badness(values[name]), name))
        worst[rule.name] = [(name, values[name]) for name in ranked[:count]]
    return worst


def headline(summary: Summary) -> str:
    """The verdict in one sentence."""
    clips = counted(len(summary.clips), "clip")
    if not summary.problems:
        return f"Healthy: all {clips} decode to the end and agree with their keypoints."
    problems = counted(len(summary.problems), "problem")
    where = f" in {summary.sick_clips:,} of {clips}" if summary.sick_clips else f" with {clips}"
    return f"{problems}{where}."


def random_clips(names: Iterable[str], count: int) -> list[str]:
    """The same clips in every run, and mostly the same after clips were added: those with the smallest hashes."""
    return sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())[:count]


def _beyond(limit: float | None, value: float, sign: int) -> float:
    """How far a value lies beyond a limit, in parts of the limit."""
    if limit is None:
        return -np.inf
    return sign * (value - limit) / max(abs(limit), 1e-6)
