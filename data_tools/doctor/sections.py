"""The sections of the page: what each shows, in words and within a bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from data_tools.accounting import KINDS
from data_tools.doctor.build_records import BuildRecords
from data_tools.doctor.findings import CHECKS, Problem
from data_tools.doctor.overlays import data_uri
from data_tools.doctor.plots import histogram, sparkline
from data_tools.doctor.report import Report
from data_tools.doctor.summary import RuleSummary
from data_tools.doctor.words import (
    as_bytes,
    as_duration,
    as_limits,
    as_number,
    counted,
    rule_meaning,
    rule_title,
    rule_unit,
)
from data_tools.filters import count_reasons
from data_tools.rules import RULES

MAX_IMAGE_BYTES = 5_000_000
"""Of all strips of a page, before base64 makes a third more of them; strips beyond are left out, and counted."""

_SHOWN_PROBLEMS = 40  # of each check; the JSON file has all


class Strips:
    """Pictures of clips as data URIs, as long as the page has room for them."""

    def __init__(self, report: Report) -> None:
        self._strips = report.strips
        self._records = {clip.clip_id: clip for clip in report.summary.clips}
        self._records |= {dropped.record.clip_id: dropped.record for dropped in report.build.dropped}
        self._room = MAX_IMAGE_BYTES
        self.left_out = 0

    def card(self, name: str, caption: str = "", *, bad: bool = True) -> dict[str, Any]:
        """What the template shows of a clip; a bad caption says what is wrong with it."""
        record, strip = self._records[name], self._strips.get(name)
        fits = strip is not None and len(strip) <= self._room
        self.left_out += strip is not None and not fits
        self._room -= len(strip) if strip is not None and fits else 0
        facts = f"{record.width}x{record.height}, {record.num_frames} frames at {record.clip_fps:.3g} fps"
        return {
            "clip_id": name,
            "caption": caption,
            "bad": bad,
            "facts": facts,
            "picture": data_uri("image/jpeg", strip) if strip is not None and fits else "",
        }

    def cards(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Those of the clips that have a picture."""
        return [card for name in names if (card := self.card(name))["picture"]]


def problems(report: Report, strips: Strips) -> list[dict[str, Any]]:
    """Problems by their check."""
    groups = []
    for check, (title, remedy) in CHECKS.items():
        found: list[Problem] = [problem for problem in report.summary.problems if problem.check == check]
        if found:
            groups.append({
                "title": title,
                "remedy": remedy,
                "count": len(found),
                "rows": found[:_SHOWN_PROBLEMS],
                "more": max(0, len(found) - _SHOWN_PROBLEMS),
                "examples": strips.cards(report.choice.problems.get(check, ())),
            })  # fmt: skip
    return groups


def distributions(report: Report) -> tuple[list[dict[str, str]], str]:
    """The distributions that describe a data set best, and in a sentence those in which all clips are the same."""
    clips, findings = report.summary.clips, report.summary.findings.values()
    rules = {rule.name: rule for rule in report.rules}
    wanted: list[tuple[str, Sequence[float], str, str]] = [
        ("Length", [clip.num_frames / clip.clip_fps for clip in clips], "seconds", ""),
        ("Frame rate", [clip.clip_fps for clip in clips], "frames per second", ""),
        ("Frame size", [min(clip.width, clip.height) for clip in clips], "pixels of short side", "short_side"),
        ("Brightness", [found.luma for found in findings if found.luma is not None], "mean luma, 0 to 255", ""),
    ]
    wanted += [
        (rule_title(name), list(rules[name].values), rule_unit(name), name)
        for name in ("people", "person_size", "visible_joints", "body_score", "motion", "sharpness")
    ]
    shown, same = [], []
    for title, values, label, rule in wanted:
        if len(set(values)) > 1:
            picture = histogram(values, label, rules[rule].limits if rule else None)
            shown.append({"title": title, "picture": picture})
        elif len(values):
            same.append(f"{title.lower()} {as_number(values[0])}" + (f" {label}" if not rule else ""))
    return shown, f"The same in all clips: {'; '.join(same)}." if same else ""


def rule_row(rule: RuleSummary, clips: int) -> dict[str, Any]:
    """A line of the table of rules."""
    low, middle, high = (as_number(value) for value in rule.quantiles[1:4]) if rule.quantiles else ("", "", "")
    return {
        "title": rule_title(rule.name),
        "name": rule.name,
        "meaning": rule_meaning(next(one for one in RULES if one.name == rule.name)),
        "limits": as_limits(rule.limits),
        "spark": sparkline(rule.values, rule.limits),
        "middle": middle,
        "spread": f"{low} to {high}" if low != high else "all clips",
        "measured": len(rule.values),
        "broken": rule.counts.broken,
        "alone": rule.counts.alone,
        "share": rule.counts.broken / max(clips, 1),
    }


def accounts(build: BuildRecords) -> list[dict[str, Any]]:
    """What became of every second."""
    if build.accounts is None or not build.accounts.rows:
        return []
    longest = max(row.seconds for row in build.accounts.rows) or 1.0
    rows = []
    for row in build.accounts.rows:
        detail = rule_title(row.detail) if row.kind == "filtered" else row.detail
        rows.append({
            "what": KINDS[row.kind] + (f": {detail}" if detail else ""),
            "kind": row.kind,
            "seconds": as_duration(row.seconds) if row.seconds else counted(row.files, "file"),
            "clips": counted(row.clips, "clip") if row.clips else "",
            "width": f"{100 * row.seconds / longest:.2f}",
        })  # fmt: skip
    return rows


def dropped(report: Report, strips: Strips) -> list[dict[str, Any]]:
    """Rules by which the build dropped clips, with examples."""
    build = report.build
    counts = [count for count in count_reasons(one.verdict for one in build.dropped) if count.broken]
    reasons = {one.record.clip_id: one.verdict.broken for one in build.dropped}
    most = max((count.broken for count in counts), default=0)
    return [
        {
            "title": rule_title(count.rule),
            "limits": as_limits(None if build.settings is None else getattr(build.settings.filters, count.rule)),
            "broken": counted(count.broken, "clip"),
            "removed": f"{count.removed:,}",
            "alone": f"{count.alone:,}",
            "width": f"{100 * count.broken / most:.2f}",
            "removed_width": f"{100 * count.removed / most:.2f}",
            "examples": [
                strips.card(name, reasons[name][count.rule]) for name in report.choice.dropped.get(count.rule, ())
            ],
        }
        for count in counts
    ]


def training(report: Report) -> dict[str, Any]:
    """What a run will ask for."""
    one, data, settings = next(iter(report.estimates.values())), report.shape.data, report.shape.training
    shape = f"{data.num_frames} frames of {data.size[1]}x{data.size[0]} pixels"
    sentence = (
        f"{shape if data.buckets is None else counted(len(data.buckets), 'bucket')}, frame stride {data.frame_stride}, "
        f"micro-batch {settings.micro_batch_size}, gradient accumulation {settings.gradient_accumulation}, "
        f"{counted(data.num_workers, 'loader worker')} a rank"
    )
    left_out = "; ".join(f"{number:,} left out: {why}" for why, number in one.left_out.items())
    facts = [("Training clips that fit", f"{one.clips:,}", left_out)]
    if data.buckets is not None:
        facts.append(("Buckets", f"{len(one.buckets)}", ", ".join(f"{name}: {n:,}" for name, n in one.buckets.items())))
    facts += [
        ("Videos on the disk", as_bytes(one.video_bytes), "each file counted once"),
        ("Keypoints on the disk", as_bytes(one.keypoint_bytes), ""),
        ("Latent cache", as_bytes(one.cache_bytes), "float16 latents and embeddings, lossless references, keypoints"),
        ("A micro-batch", as_bytes(one.batch_bytes), "frames and pose maps in float32"),
        ("Loader memory of a rank", as_bytes(one.loader_bytes), "peak: waiting batches, workers, clips being decoded"),
    ]
    steps = [(ranks, each.clips_a_step, f"{each.steps_an_epoch:,.1f}") for ranks, each in report.estimates.items()]
    return {"sentence": sentence, "facts": facts, "steps": steps}
