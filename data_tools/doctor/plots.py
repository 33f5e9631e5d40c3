"""Plots of the report: histograms, the heat map of joints, and small histograms for table rows."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Int
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data_tools.doctor.overlays import data_uri
from data_tools.settings import Limits

INK, MUTED, GRID, BAR, LIMIT = "#1c2430", "#5b6675", "#dfe3e8", "#1f5fd0", "#b42318"
"""Colours; the same as the template's."""

_BINS = 24
_SPARK_BINS, _SPARK_WIDTH, _SPARK_HEIGHT = 20, 120, 26
_TRIMMED = 0.995  # quantile up to which a long tail is drawn; what lies beyond goes into the last bar


def histogram(values: Sequence[float] | np.ndarray, label: str, limits: Limits | None = None) -> str:
    """Clips over a measured number, limits as dashed lines, as an SVG data URI.

    Args:
        values: one a clip, at least one.
        label: of the axis, with the unit.
        limits: of a rule.
    """
    figure, axes = _figure(3.6, 2.3)
    numbers, edges = _binned(np.asarray(values, np.float64), _BINS)
    axes.bar(edges[:-1], numbers, width=np.diff(edges), align="edge", color=BAR, linewidth=0.5, edgecolor="white")
    for limit in (None, None) if limits is None else (limits.min, limits.max):
        if limit is not None and edges[0] <= limit <= edges[-1]:
            axes.axvline(limit, color=LIMIT, linewidth=1.4, linestyle=(0, (4, 3)))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel(label, color=MUTED, fontsize=11)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=bool((np.asarray(values) % 1 == 0).all())))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    return _svg(figure)


def heat_map(joints: Int[np.ndarray, "cells cells"], aspect: float) -> str:
    """Where in the frame the visible joints are, as an SVG data URI.

    Args:
        joints: counts, rows from the top.
        aspect: width over height of the frames.
    """
    figure, axes = _figure(3.6, 2.3)
    axes.imshow(joints, cmap="Blues", interpolation="bilinear", extent=(0, aspect, 1, 0), vmin=0)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(GRID)
    axes.set_xticks([])
    axes.set_yticks([])
    return _svg(figure)


def sparkline(values: Sequence[float] | np.ndarray, limits: Limits | None) -> Markup:
    """A histogram without axes for a row of a table, as inline SVG; empty where all values are the same."""
    numbers = np.asarray(values, np.float64)
    if not len(numbers) or numbers.min() == numbers.max():
        return Markup("")
    counts, edges = _binned(numbers, _SPARK_BINS)
    step, top = _SPARK_WIDTH / len(counts), max(counts.max(), 1)
    parts = []
    for place, count in enumerate(counts):
        if count:
            # Small counts stay visible: a bar has at least two pixels.
            height = 2 + (_SPARK_HEIGHT - 2) * count / top
            parts.append(
                f'<rect x="{place * step:.1f}" y="{_SPARK_HEIGHT - height:.1f}" width="{step - 0.8:.1f}" '
                f'height="{height:.1f}" fill="{BAR}"/>'
            )
    for limit in (None, None) if limits is None else (limits.min, limits.max):
        if limit is not None and edges[0] <= limit <= edges[-1]:
            x = (limit - edges[0]) / (edges[-1] - edges[0]) * _SPARK_WIDTH
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_SPARK_HEIGHT}" stroke="{LIMIT}" stroke-width="1.5"/>'
            )
    return Markup(
        f'<svg class="spark" viewBox="0 0 {_SPARK_WIDTH} {_SPARK_HEIGHT}" aria-hidden="true">{"".join(parts)}</svg>'
    )


def _binned(values: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts and edges; whole numbers of a small range get a bar each, few values get few bars."""
    low, high = float(values.min()), float(np.quantile(values, _TRIMMED))
    if (values == values.round()).all() and values.max() - low < bins:
        edges = np.arange(low - 0.5, values.max() + 1)
    else:
        high = high if high > low else low + max(abs(low), 1) * 0.1
        edges = np.linspace(low, high, min(bins, 4 + round(2 * len(values) ** 0.5)) + 1)
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)


def _figure(width: float, height: float) -> tuple[Figure, mpl.axes.Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(colors=MUTED, labelsize=10, length=0)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure) -> str:
    content = io.BytesIO()
    # Letters stay letters: smaller than outlines, and in the font of the reader's system.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "doctor", "font.family": "sans-serif"}):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    return data_uri("image/svg+xml", content.getvalue())
