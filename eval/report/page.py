"""The report of a comparison: one HTML file that needs nothing else, and its numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import numpy as np

from eval.json_files import without_nan
from eval.pose_accuracy.scores import Scores, pck_difference, threshold_key
from eval.report import pictures
from eval.report.arms import ArmResult, ShownClip, require_comparable
from eval.report.contact_sheet import write_contact_sheet
from eval.report.findings import DASH, headline, percent, remarks
from eval.report.learning_page import Curves, learning_plots, learning_tables, sigma_plots, speed_up_sentences
from eval.report.pictures import Curve, Level, PlotURIs
from eval.report.tables import detector_name, latex, markdown, pose_bars, tables
from lisa_video.errors import UserError
from lisa_video.pose.render import draw_pose_maps

HEADLINE_THRESHOLD = 0.1
"""The threshold of the headline, of the bars and of the gallery's captions, if it was scored."""
_TEMPLATES = Path(__file__).parent / "templates"

PUBLISHED = (
    ("Pose accuracy, pose-guided video, 5K iterations", "30.22 %", "57.00 %"),
    ("FVD, pose-guided video, 5K iterations", "10.57", "7.85"),
)
"""Figures of the LISA paper (arXiv 2606.27192): what, baseline, LISA."""


def write_report(
    out_html: str | Path,
    arms: Sequence[ArmResult],
    floor: ArmResult | None = None,
    clips: Sequence[ShownClip] = (),
    *,
    ceiling: ArmResult | None = None,
    title: str = "Pose-guided video: LISA against the plain ControlNet",
    note: str = "",
    curves: Curves = MappingProxyType({}),
) -> None:
    """Write the HTML file; beside it the numbers as `.json`, the table of arms as `.md` and `.tex`, stills as `.png`.

    Args:
        out_html: the file to write; its folder must exist.
        arms: baseline first, LISA last; scored by one protocol.
        floor: the arm without control, by the same protocol.
        clips: shown in the gallery; each arm must have generated them.
        ceiling: the true frames through the codec and back, by the same protocol.
        title: of the page.
        note: a paragraph of one's own below the headline, such as the limits of the experiment.
        curves: of the arms over their kept checkpoints, by measure.

    Raises:
        UserError: protocols differ, or an arm lacks a clip of the gallery.
    """
    everyone = [*([floor] if floor else []), *arms, *([ceiling] if ceiling else [])]
    require_comparable(everyone)
    for arm in arms:
        if missing := [clip.clip_id for clip in clips if clip.clip_id not in arm.videos]:
            raise UserError(
                f"arm {arm.name!r} has no clip {', '.join(missing)}", remedy="generate it, or show other clips"
            )
    threshold = _headline_threshold(arms[0].scores)
    scores, learnt = tables(arms, floor, ceiling), learning_tables(curves)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%")
    page = environment.get_template("report.html").render(
        title=title,
        note=note,
        headline=headline(arms, threshold),
        remarks=remarks(arms, floor, threshold, ceiling),
        threshold=f"{threshold:g}",
        tables=scores,
        learning_tables=learnt,
        dash=DASH,
        bars=[
            (detector_name(found), pose_bars(arms, floor, threshold, ceiling, place))
            for place, found in enumerate(arms[0].evaluation.poses)
        ],
        plots=[*learning_plots(curves), *_plots(arms, floor, threshold), *sigma_plots(arms)],
        speed_ups=speed_up_sentences(curves),
        gallery=[_gallery_row(clip, arms, threshold) for clip in clips],
        protocols=_protocols(arms),
        published=PUBLISHED,
        configs=[(arm.name, arm.config_yaml) for arm in everyone if arm.config_yaml],
    )
    out_html = Path(out_html)
    _write(out_html, page)
    numbers = report_numbers(arms, floor, title, ceiling) | {"speed_ups": speed_up_sentences(curves)}
    _write(out_html.with_suffix(".json"), json.dumps(numbers, indent=2, allow_nan=False) + "\n")
    _write(out_html.with_suffix(".md"), markdown([*scores, *learnt]))
    _write(out_html.with_suffix(".tex"), latex([*scores, *learnt]))
    if clips:
        write_contact_sheet(out_html.with_suffix(".png"), clips, {arm.name: arm.videos for arm in arms})


def report_numbers(
    arms: Sequence[ArmResult], floor: ArmResult | None, title: str, ceiling: ArmResult | None = None
) -> dict[str, Any]:
    """Every number of the report as JSON values."""
    threshold = _headline_threshold(arms[0].scores)
    return {
        "title": title,
        "headline": headline(arms, threshold),
        "remarks": remarks(arms, floor, threshold, ceiling),
        "difference": _difference(arms[0], arms[-1], threshold) if len(arms) > 1 else None,
        "arms": [_arm_numbers(arm) for arm in arms],
        "floor": _arm_numbers(floor) if floor else None,
        "ceiling": _arm_numbers(ceiling) if ceiling else None,
        "published": [list(row) for row in PUBLISHED],
    }  # fmt: skip


def _difference(first: ArmResult, last: ArmResult, threshold: float) -> dict[str, Any]:
    key = threshold_key(threshold)
    return {"of": last.name, "less": first.name, "pck": key} | asdict(
        pck_difference(first.scores, last.scores, threshold)
    )


def _headline_threshold(scores: Scores) -> float:
    return HEADLINE_THRESHOLD if HEADLINE_THRESHOLD in scores.thresholds else scores.thresholds[-1]


def _plots(arms: Sequence[ArmResult], floor: ArmResult | None, threshold: float) -> list[PlotURIs]:
    """Training loss, LISA ratio, pose gap and previews; a plot that no arm has rows for is left out."""
    key = f"pck_{threshold_key(threshold)}"
    levels = [Level("true frames, all clips", arms[0].scores.ceiling[threshold_key(threshold)].value)]
    levels += [Level(f"{floor.name}, all clips", floor.scores.pck[threshold_key(threshold)].value)] if floor else []
    # Title, column, axis, levels, whether logarithmic, whether shares measured now and then.
    wanted: tuple[tuple[str, str, str, list[Level], bool, bool], ...] = (
        ("Denoising loss", "denoising", "mean square error", [], True, False),
        ("LISA loss over residual (below 1: the decoder explains part of it)", "lisa_ratio", "ratio",
         [Level("explains nothing", 1.0)], False, False),
        ("Pose gap: how much worse held-out clips get with another clip's poses", "pose_gap",
         "% of the frozen network's loss", [Level("does not look at the pose", 0.0)], False, True),
        (f"PCK@{threshold:g} of previews during training", key, "PCK, %", levels, False, True),
    )  # fmt: skip
    plots = []
    for title, column, ylabel, lines, logarithmic, shares in wanted:
        curves = [_curve(arm, column, place, markers=shares) for place, arm in enumerate(arms)]
        if any(curve.steps for curve in curves):
            plots.append(
                pictures.curve_plot(title, curves, ylabel=ylabel, levels=lines, logarithmic=logarithmic, percent=shares)
            )
    return plots


def _curve(arm: ArmResult, column: str, place: int, *, markers: bool) -> Curve:
    # The total loss of LISA has a term more than the baseline's, so only the denoising term is comparable.
    if column == "denoising" and not any(column in row for row in arm.metrics):
        column = "loss"
    steps, values = pictures.smoothed(arm.metrics, column)
    return Curve(arm.name, steps, values, place, markers)


def _gallery_row(clip: ShownClip, arms: Sequence[ArmResult], threshold: float) -> dict[str, Any]:
    """One clip: the reference picture, then pose, arms and truth as clips with stills."""
    poses = draw_pose_maps(clip.driving, (clip.truth.shape[1], clip.truth.shape[2]))
    key = threshold_key(threshold)
    columns = [{"name": "Pose", "kind": "given", "caption": "driving keypoints", **_moving(poses, clip.fps)}]
    for place, arm in enumerate(arms):
        share = arm.scores.clip(clip.clip_id)
        correct = share.correct[list(arm.scores.pck).index(key)]
        accuracy = percent(correct / share.visible) if share.visible else DASH
        columns.append({
            "name": arm.name, "kind": f"arm{place % 4}", "caption": f"PCK@{key} {accuracy}",
            **_moving(arm.videos[clip.clip_id], clip.fps),
        })  # fmt: skip
    columns.append({"name": "Truth", "kind": "given", "caption": "real clip", **_moving(clip.truth, clip.fps)})
    return {
        "clip_id": clip.clip_id,
        "place": clip.place,
        "frames": ", ".join(str(frame + 1) for frame in pictures.still_frames(len(clip.truth))),
        "reference": pictures.picture_uri(pictures.enlarged(clip.truth[:1])[0]),
        "columns": columns,
    }


def _moving(frames: np.ndarray, fps: float) -> dict[str, str]:
    return {"video": pictures.video_uri(frames, fps), "stills": pictures.stills_uri(frames)}


def _arm_numbers(arm: ArmResult) -> dict[str, Any]:
    return {
        "name": arm.name, "steps": arm.steps, "training_seconds": arm.training_seconds,
        "parameters": arm.parameters, "evaluation": without_nan(asdict(arm.evaluation)),
    }  # fmt: skip


def _protocols(arms: Sequence[ArmResult]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(what, protocol id, items) of every number on the page."""
    parts = arms[0].evaluation
    named: list[tuple[str, Any]] = [(f"Pose accuracy by {detector_name(scores)}", scores) for scores in parts.poses]
    named += [(f"{distance.label}, {distance.protocol['features']['name']}", distance) for distance in parts.distances]
    named.append(("PSNR", parts.pixels))
    named += [("Held-out loss", parts.loss)] if parts.loss is not None else []
    return [(what, part.protocol_id, _flat(part.protocol)) for what, part in named]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested protocol items as (dotted name, text)."""
    items = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        items += _flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, str(value))]
    return items


def _write(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
