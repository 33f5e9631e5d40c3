"""Pictures of a report as data URIs: clips, sheets of stills, and curves in a light and a dark version."""

from __future__ import annotations

import base64
import io
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lisa_video.data.video_io import write_video

SHOWN_PX = 192
"""Small clips are enlarged by a whole factor until their shorter side has this many pixels."""
STILLS = 4
_GAP_PX = 8


class Curve(NamedTuple):
    """A line of a plot with, if there is one, its 95 % band; `color` indexes the palette: one colour an arm."""

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    color: int
    markers: bool = False
    band: tuple[Sequence[float], Sequence[float]] | None = None


class Level(NamedTuple):
    """A horizontal line of a plot, such as a floor or a ceiling."""

    label: str
    value: float


class PlotURIs(NamedTuple):
    """One plot for light and for dark surroundings."""

    light: str
    dark: str
    title: str


class Theme(NamedTuple):
    """Colours of plots; the same as the template's custom properties."""

    ink: str
    muted: str
    grid: str
    palette: tuple[str, ...]


LIGHT = Theme("#1c2430", "#5b6675", "#dfe3e8", ("#c2600a", "#1f5fd0", "#0f8a6d", "#8a3fc2"))
DARK = Theme("#e8ecf2", "#9aa5b4", "#333c49", ("#f2a154", "#78a8ff", "#4fcfad", "#c792f2"))


def enlarged(frames: UInt8[np.ndarray, "F H W 3"], at_least_px: int = SHOWN_PX) -> UInt8[np.ndarray, "F h w 3"]:
    """Frames enlarged by a whole factor (bicubic) for display, and cut to an even size for H.264."""
    factor = max(1, math.ceil(at_least_px / min(frames.shape[1:3])))
    size = (frames.shape[2] * factor, frames.shape[1] * factor)
    shown = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames])
    return shown[:, : size[1] // 2 * 2, : size[0] // 2 * 2].astype(np.uint8)


def video_uri(frames: UInt8[np.ndarray, "F H W 3"], fps: float) -> str:
    """A clip as an H.264 data URI."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, enlarged(frames), fps, crf=20)
        return _uri("video/mp4", path.read_bytes())


def picture_uri(picture: UInt8[np.ndarray, "H W colors"]) -> str:
    """One RGB or RGBA picture as a PNG data URI."""
    bgr = picture[..., [2, 1, 0, 3][: picture.shape[2]]]
    written, data = cv2.imencode(".png", np.ascontiguousarray(bgr), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not written:
        raise ValueError(f"a picture of shape {picture.shape} cannot be stored as PNG")
    return _uri("image/png", data.tobytes())


def stills_uri(frames: UInt8[np.ndarray, "F H W 3"]) -> str:
    """Stills at even distances from the first to the last frame, in rows of two, as a PNG data URI."""
    stills = list(enlarged(frames[still_frames(len(frames))], SHOWN_PX // 2))
    height, width = stills[0].shape[:2]
    sheet = np.full((height * -(-len(stills) // 2) + _GAP_PX * ((len(stills) - 1) // 2), 2 * width + _GAP_PX, 4), 0)
    for place, still in enumerate(stills):
        top, left = place // 2 * (height + _GAP_PX), place % 2 * (width + _GAP_PX)
        sheet[top : top + height, left : left + width, :3] = still
        sheet[top : top + height, left : left + width, 3] = 255  # the gaps stay clear
    return picture_uri(sheet.astype(np.uint8))


def still_frames(num_frames: int) -> list[int]:
    """Frame numbers that the stills show."""
    return sorted({round(place) for place in np.linspace(0, num_frames - 1, STILLS)})


def curve_plot(
    title: str,
    curves: Sequence[Curve],
    *,
    ylabel: str,
    levels: Sequence[Level] = (),
    logarithmic: bool = False,
    percent: bool = False,
) -> PlotURIs:
    """Curves against training steps.

    Args:
        title: what is shown.
        curves: lines; a curve without points is left out.
        ylabel: of the vertical axis, with unit.
        levels: dashed horizontal lines.
        logarithmic: vertical axis.
        percent: values in [0, 1] are shown as 0 to 100.
    """
    uris = []
    for theme in (LIGHT, DARK):
        figure = Figure(figsize=(4.3, 2.8), dpi=180, layout="constrained")
        axes = figure.add_subplot()
        _draw_curves(axes, curves, levels, theme, 100.0 if percent else 1.0)
        if logarithmic:
            axes.set_yscale("log")
        _dress(axes, theme, ylabel)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", transparent=True, metadata={"Software": None})
        uris.append(_uri("image/png", buffer.getvalue()))
    return PlotURIs(uris[0], uris[1], title)


def smoothed(rows: Sequence[Mapping[str, Any]], key: str, points: int = 150) -> tuple[list[float], list[float]]:
    """Steps and means of a logged value over neighbouring rows, so that at most `points` remain."""
    pairs = [(float(row["step"]), float(row[key])) for row in rows if key in row and math.isfinite(row[key])]
    every = max(1, math.ceil(len(pairs) / points))
    spans = [pairs[start : start + every] for start in range(0, len(pairs), every)]
    means = [np.mean(span, axis=0) for span in spans]
    return [float(mean[0]) for mean in means], [float(mean[1]) for mean in means]


def _draw_curves(axes: Axes, curves: Sequence[Curve], levels: Sequence[Level], theme: Theme, scale: float) -> None:
    for curve in curves:
        if curve.steps:
            axes.plot(
                curve.steps,
                np.asarray(curve.values) * scale,
                color=theme.palette[curve.color % len(theme.palette)],
                marker="o" if curve.markers else "",
                markersize=4,
                linewidth=1.8,
                label=curve.label,
            )
        if curve.band is not None:
            low, high = (np.asarray(edge) * scale for edge in curve.band)
            color = theme.palette[curve.color % len(theme.palette)]
            axes.fill_between(curve.steps, low, high, color=color, alpha=0.15, linewidth=0)
    for level, style in zip(levels, ("--", ":", "-.") * len(levels), strict=False):
        axes.axhline(level.value * scale, color=theme.muted, linewidth=1.2, linestyle=style, label=level.label)


def _dress(axes: Axes, theme: Theme, ylabel: str) -> None:
    axes.set_xlabel("training step", color=theme.muted)
    axes.set_ylabel(ylabel, color=theme.muted)
    axes.tick_params(colors=theme.muted, labelsize=9, which="both", length=0)
    axes.grid(True, color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=theme.ink, fontsize=9)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
