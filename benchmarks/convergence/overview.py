"""One figure of arms from several result files: which of them has when what the first one ends with?

Bands go from the lowest seed to the highest: how clips differ is common to all arms, and would hide them. Races of
different machines are not paired.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.convergence.compare import Side
from benchmarks.convergence.figure import dress, look
from benchmarks.convergence.results import GAP, LOSS, PCK

_MEASURES = {PCK: (100.0, " (%)"), LOSS: (1.0, ""), GAP: (100.0, " (%)")}


def overview(arms: Mapping[str, Side]) -> Figure:
    """A panel a measure: means and ranges over seeds against steps, and a line at what the first arm ends with.

    Args:
        arms: by the name that the legend gives them.
    """
    figure = Figure(figsize=(5 * len(_MEASURES), 3.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(_MEASURES), squeeze=False)[0]
    for axes, measure in zip(panels, _MEASURES, strict=True):
        _draw(axes, measure, arms)
    panels[0].legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def write_overview(arms: Mapping[str, Side], path: Path) -> None:
    """Write `overview` as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    overview(arms).savefig(path, metadata={"Software": None})


def _draw(axes: Axes, measure: str, arms: Mapping[str, Side]) -> None:
    scale, unit = _MEASURES[measure]
    for number, (name, side) in enumerate(arms.items()):
        entry = side.numbers(measure)
        value, seeds = np.array(entry["value"]) * scale, np.array(entry["per_seed"]) * scale
        style = look(number)
        axes.plot(entry["steps"], value, label=name, **style)
        low, high = seeds.min(axis=0), seeds.max(axis=0)
        axes.fill_between(entry["steps"], low, high, color=style["color"], alpha=0.15, linewidth=0)
        if number == 0:
            axes.axhline(value[-1], color="0.5", linewidth=1, linestyle=":")
    axes.set(xlabel="training step", xlim=(0, None))
    dress(axes, f"{measure}{unit}")
