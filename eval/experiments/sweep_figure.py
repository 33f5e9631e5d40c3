"""Pictures of a sweep: a figure with a panel a measure and a line an arm, and clips side by side."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.experiments.compare import shown_clips, shown_places
from eval.experiments.sweep import PCK, Arms, SweepJob, Swept
from eval.report.contact_sheet import write_contact_sheet
from eval.report.pictures import LIGHT
from eval.runs.evaluation import Measures, evaluate
from eval.runs.generate import load_generated


def draw_sweep(arms: Arms, job: SweepJob, path: Path) -> None:
    """Write a PNG; the band of pose accuracy is its 95 % interval over clips."""
    labels = list(next(iter(arms.values()))[0].distances)
    figure = Figure(figsize=(4.2 * (2 + len(labels)), 3.4), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2 + len(labels), squeeze=False)[0]
    _panel(panels[0], f"{PCK} (%, more is better)", arms, lambda entry: 100 * entry.pck.value)
    for number, swept in enumerate(arms.values()):
        low, high = [100 * entry.pck.low for entry in swept], [100 * entry.pck.high for entry in swept]
        panels[0].fill_between(_places(swept), low, high, color=_color(number), alpha=0.12, linewidth=0)
    for axes, label in zip(panels[1:], labels, strict=False):
        _panel(axes, f"{label} (less is better)", arms, partial(_distance, label))
    _panel(panels[-1], "PSNR (dB)", arms, lambda entry: entry.psnr_db)
    for axes in panels:
        axes.set_xlabel(", ".join(setting.removeprefix("sampling.") for setting in job.settings))
    panels[0].legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def show_sweep(run: str, job: SweepJob, measures: Measures, path: Path) -> None:
    """Write clips of a run that was swept at all values; which ones, its scores at the first value decide."""
    jobs = {value: job.at(run, value) for value in job.values}
    first = jobs[job.values[0]]
    places = shown_places(evaluate(first, measures).poses[0])
    columns = {name: {clip: load_generated(one.folder, clip) for clip in places} for name, one in jobs.items()}
    write_contact_sheet(path, shown_clips(first, places), columns)


def _panel(axes: Axes, label: str, arms: Arms, number: Callable[[Swept], float]) -> None:
    for place, (arm, swept) in enumerate(arms.items()):
        values = [number(entry) for entry in swept]
        axes.plot(_places(swept), values, label=arm, color=_color(place), marker="o", markersize=3)
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _distance(label: str, entry: Swept) -> float:
    return entry.distances[label]


def _places(swept: list[Swept]) -> list[float] | list[str]:
    """Numbers where all values are, else the words."""
    try:
        return [float(entry.value) for entry in swept]
    except ValueError:
        return [entry.value for entry in swept]


def _color(number: int) -> str:
    return LIGHT.palette[number % len(LIGHT.palette)]
