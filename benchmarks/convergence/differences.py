"""Small multiples: how far each arm is ahead of its baseline at their last step; a panel a measure, a line an arm."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.convergence.compare import Side
from benchmarks.convergence.figure import dress, look
from benchmarks.convergence.results import GAP, LOSS, PCK
from lisa_video.errors import UserError

_LABELS = {PCK: f"{PCK}, points", LOSS: f"{LOSS}, % of the frozen network's", GAP: f"{GAP}, points"}
_LINE_HEIGHT, _FRAME_HEIGHT = 0.26, 0.8  # inches


class Line(NamedTuple):
    """An arm of a file and the arm of the same file that it is set against."""

    label: str
    arm: Side
    baseline: Side

    @classmethod
    def parse(cls, given: str) -> list[Self]:
        """Lines that `FILE` (every arm against the first) or `FILE:BASELINE:ARM:LABEL` stands for.

        Raises:
            UserError: neither of the two, or the file has no such arm.
        """
        file, *rest = given.split(":")
        if len(rest) not in (0, 3):
            raise UserError("not of the form FILE or FILE:BASELINE:ARM:LABEL", where=given, remedy="write one of these")
        if rest:
            baseline, arm, label = rest
            return [cls(label, Side.read(Path(file), arm), Side.read(Path(file), baseline))]
        found = json.loads(Path(file).read_text(encoding="utf-8"))
        first, *others = (Side(Path(file), entry["arm"], found) for entry in found["arms"])
        return [cls(side.arm, side, first) for side in others]

    def ahead(self, measure: str) -> tuple[float, float, float]:
        """Paired difference at the last step that both arms have, and the ends of its interval; positive is better.

        Of a share it is in points, of the loss in percent of the frozen network's.
        """
        gap, scale = self._paired(measure), self._scale(measure)
        low, high = sorted((gap["low"][-1] * scale, gap["high"][-1] * scale))
        return gap["value"][-1] * scale, low, high

    def ahead_per_seed(self, measure: str) -> list[float]:
        """The same of each training seed."""
        both, scale = (self.arm.numbers(measure), self.baseline.numbers(measure)), self._scale(measure)
        step = max(set(both[0]["steps"]) & set(both[1]["steps"]))
        ours, theirs = ([of_seed[of["steps"].index(step)] for of_seed in of["per_seed"]] for of in both)
        return [(of_arm - of_baseline) * scale for of_arm, of_baseline in zip(ours, theirs, strict=True)]

    def _paired(self, measure: str) -> dict[str, list[float]]:
        over: dict[str, Any] = self.arm.numbers(measure)["over"]
        if self.baseline.arm not in over:
            raise UserError("an arm cannot be set against itself", where=self.label, remedy="name another baseline")
        paired: dict[str, list[float]] = over[self.baseline.arm]["difference"]
        return paired

    def _scale(self, measure: str) -> float:
        return -100.0 / self.baseline.numbers(LOSS)["value"][0] if measure == LOSS else 100.0


def differences(lines: Sequence[Line]) -> Figure:
    """Dots are means, bars 95 % intervals, ticks training seeds; to the right is better in every panel."""
    height = _FRAME_HEIGHT + _LINE_HEIGHT * len(lines)
    figure = Figure(figsize=(4 * len(_LABELS) + 1.5, height), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(_LABELS), sharey=True, squeeze=False)[0]
    for axes, measure in zip(panels, _LABELS, strict=True):
        _draw(axes, measure, lines)
    panels[0].set_yticks(range(len(lines)), [line.label for line in lines])
    panels[0].invert_yaxis()
    return figure


def write_differences(lines: Sequence[Line], path: Path) -> None:
    """Write `differences` as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    differences(lines).savefig(path, metadata={"Software": None})


def _draw(axes: Axes, measure: str, lines: Sequence[Line]) -> None:
    axes.axvline(0.0, color="0.4", linewidth=1)
    for place, line in enumerate(lines):
        (value, low, high), seeds, color = line.ahead(measure), line.ahead_per_seed(measure), look(0)["color"]
        axes.plot([low, high], [place, place], color=color, linewidth=2, alpha=0.5)
        axes.plot(seeds, [place] * len(seeds), color="0.2", marker="|", markersize=7, linestyle="none")
        axes.plot([value], [place], color=color, marker="o", markersize=5)
    dress(axes, "")
    axes.set(xlabel=_LABELS[measure], ylim=(-0.6, len(lines) - 0.4))
