"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from data_tools.doctor import sections
from data_tools.doctor.plots import heat_map
from data_tools.doctor.report import Report
from data_tools.doctor.summary import Summary, headline
from data_tools.doctor.words import as_duration, as_number, counted, rule_title, rule_unit

_SHOWN_QUARANTINED = 100
_TEMPLATES = Path(__file__).parents[1] / "templates"


def render(report: Report) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    strips = sections.Strips(report)
    summary = report.summary
    shown, same = sections.distributions(report)
    context: dict[str, Any] = {
        "title": report.out.resolve().name,
        "healthy": not summary.problems,
        "headline": headline(summary),
        "remarks": _remarks(report),
        "tiles": _tiles(report),
        "problems": sections.problems(report, strips),
        "plots": shown,
        "same": same,
        "heat_map": heat_map(summary.joints, _aspect(summary)) if summary.joints.any() else "",
        "rules": [sections.rule_row(rule, len(summary.findings)) for rule in report.rules],
        "is_build": report.build.settings is not None,
        "accounts": sections.accounts(report.build),
        "dropped": sections.dropped(report, strips),
        "gallery": [strips.card(name) for name in report.choice.gallery],
        "worst": [
            {
                "title": rule_title(rule),
                "clips": [
                    strips.card(
                        name,
                        f"{as_number(value)} {rule_unit(rule)}",
                        bad=rule in summary.findings[name].broken,
                    )
                    for name, value in clips
                ],
            }
            for rule, clips in report.choice.worst.items()
        ],
        "training": sections.training(report),
        "quarantined": report.build.quarantined[:_SHOWN_QUARANTINED],
        "num_quarantined": len(report.build.quarantined),
    }
    # Last, when all strips were asked for.
    context["left_out"] = strips.left_out
    return environment.get_template("doctor.html").render(context)


def _remarks(report: Report) -> list[str]:
    """What is no problem, but good to know."""
    summary, remarks = report.summary, []
    splits = {clip.split for clip in summary.clips}
    if "val" not in splits:
        remarks.append("There is no held-out clip (split val): nothing can be evaluated.")
    if "train" not in splits:
        remarks.append("There is no training clip (split train).")
    outside = sum(bool(found.broken) for found in summary.findings.values())
    if outside:
        remarks.append(f"{counted(outside, 'clip')} of the data set would be dropped by the limits shown below.")
    if report.build.quarantined:
        quarantined = counted(len(report.build.quarantined), "line")
        remarks.append(f"The build could not use everything: its quarantine list has {quarantined}.")
    if report.build.note:
        remarks.append(report.build.note)
    estimate = next(iter(report.estimates.values()))
    if not estimate.clips and "train" in splits:
        remarks.append("No training clip is long enough for the settings of the run shown below.")
    return remarks


def _tiles(report: Report) -> list[tuple[str, str, str]]:
    """(number, what, detail) of the facts on top."""
    clips = report.summary.clips
    train = sum(clip.split == "train" for clip in clips)
    sizes = [f"{clip.width}x{clip.height}" for clip in clips]
    rates = np.array([clip.clip_fps for clip in clips])
    frames = sum(clip.num_frames for clip in clips)
    tiles = [
        (f"{len(clips):,}", "clips", f"{train:,} train, {len(clips) - train:,} val"),
        (as_duration(report.summary.seconds), "footage", counted(frames, "frame")),
        (
            f"{len({clip.source for clip in clips}):,}",
            "sources",
            counted(len({clip.video for clip in clips}), "video file"),
        ),
        (max(set(sizes), key=lambda size: (sizes.count(size), size)), "frame size", _others(len(set(sizes)), "size")),
        (
            as_number(float(np.median(rates))),
            "frames a second",
            f"{as_number(rates.min())} to {as_number(rates.max())}",
        ),
    ]
    if report.build.judged:
        dropped = len(report.build.dropped)
        tiles.append((f"{dropped:,}", "clips dropped", f"of {report.build.judged:,} that the build judged"))
    return tiles


def _others(count: int, what: str) -> str:
    return "everywhere" if count == 1 else f"the most common of {counted(count, what)}"


def _aspect(summary: Summary) -> float:
    return float(np.median([clip.width / clip.height for clip in summary.clips]))
