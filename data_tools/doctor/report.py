"""`Report`: everything that the page and the JSON file tell, before it is put into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.doctor.build_records import BuildRecords
from data_tools.doctor.estimate import Estimate, TrainingShape
from data_tools.doctor.summary import RuleSummary, Summary
from data_tools.settings import FilterSettings


@dataclass(frozen=True)
class Choice:
    """Which clips are shown with a strip; clip ids.

    Attributes:
        problems: check -> clips.
        dropped: rule -> clips that it removed.
        worst: rule -> clips with their values.
        gallery: clips picked at random.
    """

    problems: Mapping[str, Sequence[str]]
    dropped: Mapping[str, Sequence[str]]
    worst: Mapping[str, Sequence[tuple[str, float]]]
    gallery: Sequence[str]

    def in_order(self) -> list[str]:
        """All of them, each once, what matters most first: that is what is drawn if not all fits."""
        groups = [*self.problems.values(), self.gallery, *self.dropped.values()]
        groups += [[name for name, _ in clips] for clips in self.worst.values()]
        return list(dict.fromkeys(name for group in groups for name in group))


@dataclass(frozen=True)
class Report:
    """Everything that the page tells.

    Attributes:
        out: folder of the data set.
        summary: of its clips.
        rules: the same under the limits.
        limits: of the rules.
        build: records of its build.
        estimates: for several numbers of ranks.
        shape: of the run that they are for.
        choice: clips to show.
        strips: clip id -> JPEG file; a clip that could not be drawn is missing.
    """

    out: Path
    summary: Summary
    rules: Sequence[RuleSummary]
    limits: FilterSettings
    build: BuildRecords
    estimates: Mapping[int, Estimate]
    shape: TrainingShape
    choice: Choice
    strips: Mapping[str, bytes]
