"""The figure of an experiment: each measure against steps, and how far each arm is from the first one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.report.learning_curves import LearningCurve, difference


def draw_curves(curves: Mapping[str, Sequence[LearningCurve]], title: str, path: Path) -> None:
    """Write a PNG with a column a measure; below the values, differences with their 95 % intervals."""
    figure = Figure(figsize=(5 * len(curves), 6.4), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(2, len(curves), sharex=True, squeeze=False)
    for (values, gaps), (measure, of_arms) in zip(panels.T, curves.items(), strict=True):
        unit = " (%)" if of_arms[0].percent else ""
        for number, curve in enumerate(of_arms):
            values.plot(curve.steps, curve.values * _scale(curve), label=curve.arm, **look(number))
        _draw_gaps(gaps, of_arms)
        dress(values, f"{measure}{unit}")
        dress(gaps, f"difference from {of_arms[0].arm}{unit}")
        gaps.set_xlabel("training step")
    panels[0, -1].legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Software": None})


def _draw_gaps(axes: Axes, of_arms: Sequence[LearningCurve]) -> None:
    axes.axhline(0.0, color="0.4", linewidth=1)
    for number, curve in enumerate(of_arms[1:], start=1):
        gap, scale, style = difference(of_arms[0], curve), _scale(curve), look(number)
        axes.plot(gap.steps, gap.value * scale, **style)
        axes.fill_between(gap.steps, gap.low * scale, gap.high * scale, color=style["color"], alpha=0.15, linewidth=0)


def _scale(curve: LearningCurve) -> float:
    return 100.0 if curve.percent else 1.0


def look(number: int) -> dict[str, object]:
    """Colour and marker of the arm of that number."""
    return {"color": colormaps["tab10"](number % 10), "marker": "o", "markersize": 3}


def dress(axes: Axes, label: str) -> None:
    """What all panels have in common."""
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
