"""What `eval pose` prints: one block for each convention, with its ceiling, its floor and its protocol."""

from __future__ import annotations

import math
from collections.abc import Iterator

from eval.pose_accuracy.pose import CONVENTIONS, Convention, PoseReport, PoseResult
from eval.pose_accuracy.pose_metrics import SPEEDS, PoseScores
from eval.report.findings import percent
from eval.report.text_table import aligned, number_cell, protocol_lines, share_cell

_SHOWN_JOINTS = 3


def report_lines(report: PoseReport) -> Iterator[str]:
    """The whole report, line by line."""
    for convention, result in report.results.items():
        yield from _result_lines(convention, result)
        yield ""
    if report.skipped:
        yield f"{len(report.skipped)} clips skipped:"
        yield from (f"  {name}: {reason}" for name, reason in report.skipped)
    yield from (f"note: {note}" for note in report.notes)


def _result_lines(convention: Convention, result: PoseResult) -> Iterator[str]:
    scores = result.scores
    yield f"Pose accuracy against {CONVENTIONS[convention]}"
    yield f"  protocol {result.protocol_id}, {len(scores.clips)} clips, {scores.total('visible')} true joints"
    columns: list[tuple[str, PoseScores]] = [("generated [95 %]", scores)]
    if result.ceiling is not None:
        columns.append(("real video (ceiling)", result.ceiling))
    columns.append(("other poses (floor)", result.floor))
    rows = [["", *(head for head, _ in columns)]]
    for threshold in scores.pck:
        rows.append([f"PCK@{threshold}", *(share_cell(part.pck[threshold]) for _, part in columns)])
    rows.append(["OKS-AP", *(share_cell(part.oks_ap) for _, part in columns)])
    rows.append(["OKS-AP50 / 75", *(f"{percent(part.oks_ap50)} / {percent(part.oks_ap75)}" for _, part in columns)])
    rows.append(["mean OKS", *(number_cell(part.oks, 3) for _, part in columns)])
    rows.append(["joint error, sizes", *(number_cell(part.error, 3) for _, part in columns)])
    rows.append(["joint error, px", *(number_cell(part.error_px, 2) for _, part in columns)])
    for threshold in scores.pck:
        label = f"left/right swaps in misses @{threshold}"
        rows.append([label, *(share_cell(part.swap_rate[threshold]) for _, part in columns)])
    for count in ("people", "missing", "extra", "unmeasured"):
        rows.append([_PEOPLE[count], *(str(part.total(count)) for _, part in columns)])
    yield from aligned(rows)
    yield from _detail_lines(scores)
    yield "  protocol, spelled out:"
    yield from protocol_lines(result.protocol)


_PEOPLE = {
    "people": "true people in frames",
    "missing": "of these nobody found",
    "extra": "people found too many",
    "unmeasured": "of unknown size, not counted",
}


def _detail_lines(scores: PoseScores) -> Iterator[str]:
    threshold = "0.1" if "0.1" in scores.pck else next(iter(scores.pck))
    known = {name: value for name, value in scores.pck_per_joint[threshold].items() if not math.isnan(value)}
    ranked = sorted(known, key=lambda name: known[name])
    groups = ", ".join(f"{name} {percent(value)}" for name, value in scores.pck_per_group[threshold].items())
    yield f"  PCK@{threshold} by part: {groups}"
    if len(ranked) > 2 * _SHOWN_JOINTS:
        for word, names in (("worst", ranked[:_SHOWN_JOINTS]), ("best", ranked[: -_SHOWN_JOINTS - 1 : -1])):
            yield f"    {word} joints: " + ", ".join(f"{name} {percent(known[name])}" for name in names)
    slow, fast = scores.speed_bounds
    thirds = ", ".join(
        f"{name} {percent(value)}" for name, value in zip(SPEEDS, scores.pck_per_speed[threshold], strict=True)
    )
    bounds = "" if math.isnan(slow) else f" (bounds {slow:.2f} and {fast:.2f} person sizes per second)"
    yield f"  PCK@{threshold} by speed: {thirds}{bounds}"
    frames = scores.pck_per_frame[threshold]
    places = sorted({0, len(frames) // 2, len(frames) - 1})
    yield f"  PCK@{threshold} by frame: " + ", ".join(f"{place + 1}: {percent(frames[place])}" for place in places)
