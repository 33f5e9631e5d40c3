"""The figure of an experiment: each measure against steps, one line an arm, bands over seeds and clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

from eval.learning_curves import LearningCurve


def draw_curves(curves: Mapping[str, Sequence[LearningCurve]], title: str, path: Path) -> None:
    """Write a PNG with one panel a measure; arms have the same colour in all."""
    figure = Figure(figsize=(5 * len(curves), 3.8), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=11)
    for place, (measure, of_arms) in enumerate(curves.items()):
        axes = figure.add_subplot(1, len(curves), place + 1)
        for number, curve in enumerate(of_arms):
            scale, color = 100.0 if curve.percent else 1.0, colormaps["tab10"](number % 10)
            low, high = curve.band()
            axes.plot(curve.steps, curve.values * scale, color=color, marker="o", markersize=3, label=curve.arm)
            axes.fill_between(curve.steps, low * scale, high * scale, color=color, alpha=0.12, linewidth=0)
        axes.set_xlabel("training step")
        axes.set_ylabel(f"{measure} (%)" if of_arms[0].percent else measure)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Software": None})
