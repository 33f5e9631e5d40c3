"""`run_doctor`: looks at a data set, then writes the report and the same findings for machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from data_tools.atomic import replace_text
from data_tools.doctor.build_records import BuildRecords, read_build
from data_tools.doctor.clip_checks import ClipTask, look_at_bytes, look_at_clip
from data_tools.doctor.estimate import TrainingShape, estimate
from data_tools.doctor.findings import ClipFindings, Problem
from data_tools.doctor.overlays import StripTask, draw_strip
from data_tools.doctor.report import Choice, Report
from data_tools.doctor.set_checks import check_set, read_records
from data_tools.doctor.summary import QUANTILES, Summary, headline, random_clips, summarise, worst_clips
from data_tools.engine.base import Engine, Lost
from data_tools.engine.local import LocalEngine
from data_tools.filters import count_reasons
from data_tools.manifest import MANIFEST_NAME
from data_tools.settings import FilterSettings
from lisa_video.config.schema import DataConfig, TrainingConfig
from lisa_video.data.manifest import ClipRecord
from lisa_video.errors import UserError

FOLDER, PAGE_NAME, JSON_NAME, CLIPS_NAME = "doctor", "doctor.html", "doctor.json", "clips.jsonl"
SCHEMA, VERSION = "lisa_video.doctor", 1

_GALLERY, _EXAMPLES, _WORST = 12, 3, 3  # clips shown: in all, of each check or rule
_RANKS = (1, 8)
_STRIP_SECONDS = 60.0

T = TypeVar("T")
R = TypeVar("R")


class Diagnosis(NamedTuple):
    """What the doctor says.

    Attributes:
        page: the report.
        problems: number of things to mend; 0: healthy.
        headline: the verdict in one sentence.
    """

    page: Path
    problems: int
    headline: str


def run_doctor(
    out: Path,
    *,
    limits: FilterSettings | None = None,
    data: DataConfig | None = None,
    training: TrainingConfig | None = None,
    ranks: int = 1,
    workers: int | None = None,
    timeout_s: float = 600.0,
    check_bytes: bool = True,
    progress: bool = True,
) -> Diagnosis:
    """Decode every clip of a data set once, check it, and write the report.

    Works on any folder with a manifest; beside the records of a data build it also says what that dropped, and why.
    Writes `OUT/doctor/`: `doctor.html`, `doctor.json` and, with a line for each clip, `clips.jsonl`.

    Args:
        out: folder of the manifest.
        limits: of the rules; None: those of the build, or the default ones.
        data: settings of the run that the predictions are for; None: defaults.
        training: likewise.
        ranks: processes of that run.
        workers: processes of the doctor; None: one a core.
        timeout_s: for one clip.
        check_bytes: compare the digest of every video with the manifest.
        progress: show progress bars.

    Raises:
        UserError: no manifest, an empty one, or the libraries that draw the report are not installed.
    """
    render = _page_writer()
    root = Path(out)
    clips, problems = read_records(root / MANIFEST_NAME)
    build = read_build(root)
    limits = limits or (FilterSettings() if build.settings is None else build.settings.filters)
    problems += check_set(clips)
    with LocalEngine(workers) as engine:
        work = _Work(engine, timeout_s, progress)
        if check_bytes:
            problems += work.videos(root, clips)
        summary = summarise(clips, work.clips(root, clips, limits), problems)
        choice = _choose(summary, limits, build)
        strips = work.strips(root, _records(clips, build), choice.in_order())
    shape = TrainingShape(data or DataConfig(manifest=str(root / MANIFEST_NAME)), training or TrainingConfig(), ranks)
    report = Report(
        out=root,
        summary=summary,
        rules=summary.rules(limits),
        limits=limits,
        build=build,
        estimates={
            n: estimate(root, clips, TrainingShape(shape.data, shape.training, n)) for n in sorted({ranks, *_RANKS})
        },
        shape=shape,
        choice=choice,
        strips=strips,
    )
    folder = root / FOLDER
    folder.mkdir(exist_ok=True)
    replace_text(folder / CLIPS_NAME, (json.dumps(_clip_numbers(found)) + "\n" for found in summary.findings.values()))
    replace_text(folder / JSON_NAME, [json.dumps(report_numbers(report), indent=1) + "\n"])
    replace_text(folder / PAGE_NAME, [render(report)])
    return Diagnosis(folder / PAGE_NAME, len(summary.problems), headline(summary))


def _page_writer() -> Callable[[Report], str]:
    try:
        from data_tools.doctor.page import render
    except ImportError as error:
        raise UserError(
            f"the report needs libraries that are not installed ({error})",
            remedy="pip install 'lisa-video[data,report]'",
        ) from error
    return render


class _Work:
    """What is done in killable processes."""

    def __init__(self, engine: Engine, timeout_s: float, progress: bool) -> None:
        self._engine, self._timeout_s, self._progress = engine, timeout_s, progress

    def videos(self, root: Path, clips: Sequence[ClipRecord]) -> Iterator[Problem]:
        """Problems of the bytes of the videos."""
        tasks = list({(clip.video, clip.source_digest): (root, clip) for clip in clips}.values())
        for (_, record), result in self._run(look_at_bytes, tasks, "bytes", "video", self._timeout_s):
            if isinstance(result, Lost):
                yield Problem(*_lost(result, self._timeout_s), where=record.video)
            elif result is not None:
                yield result

    def clips(self, root: Path, clips: Sequence[ClipRecord], limits: FilterSettings) -> Iterator[ClipFindings]:
        """Findings of each clip, as they are ready."""
        tasks = [ClipTask(root, clip, limits) for clip in clips]
        for task, result in self._run(look_at_clip, tasks, "clips", "clip", self._timeout_s):
            if isinstance(result, Lost):
                clip_id, video = task.record.clip_id, task.record.video
                problem = Problem(*_lost(result, self._timeout_s), clip_id=clip_id, where=video)
                yield ClipFindings(clip_id, (problem,))
            else:
                yield result

    def strips(self, root: Path, records: dict[str, ClipRecord], names: Sequence[str]) -> dict[str, bytes]:
        """Clip id -> JPEG file; what cannot be drawn is missing."""
        tasks = [StripTask(root, records[name]) for name in names]
        results = self._run(draw_strip, tasks, "pictures", "clip", _STRIP_SECONDS)
        return {task.record.clip_id: result for task, result in results if isinstance(result, bytes)}

    def _run(
        self, work: Callable[[T], R], tasks: Sequence[T], name: str, unit: str, seconds: float
    ) -> Iterator[tuple[T, R | Lost]]:
        results = self._engine.run(work, tasks, lambda task: seconds)
        return iter(tqdm(results, desc=name, total=len(tasks), unit=unit, disable=not self._progress or not tasks))


def _lost(result: Lost, timeout_s: float) -> tuple[str, str]:
    """Check and facts of a task without a result."""
    if result.reason == "timeout":
        return "timeout", f"not done after {timeout_s:g} s"
    return "crash", f"the process ended with status {result.exit_code}"


def _records(clips: Sequence[ClipRecord], build: BuildRecords) -> dict[str, ClipRecord]:
    return {dropped.record.clip_id: dropped.record for dropped in build.dropped} | {
        clip.clip_id: clip for clip in clips
    }


def _choose(summary: Summary, limits: FilterSettings, build: BuildRecords) -> Choice:
    """The clips to show."""
    by_check: dict[str, list[str]] = {}
    known = {clip.clip_id for clip in summary.clips}
    for problem in summary.problems:
        if problem.clip_id in known and problem.check not in ("missing", "clip_id"):
            by_check.setdefault(problem.check, []).append(str(problem.clip_id))
    by_rule: dict[str, list[str]] = {}
    for dropped in build.dropped:
        by_rule.setdefault(next(iter(dropped.verdict.broken)), []).append(dropped.record.clip_id)
    return Choice(
        problems={check: random_clips(names, _EXAMPLES) for check, names in by_check.items()},
        dropped={rule: random_clips(names, _EXAMPLES) for rule, names in by_rule.items()},
        worst=worst_clips(summary, limits, _WORST),
        gallery=random_clips((clip.clip_id for clip in summary.clips), _GALLERY),
    )


def report_numbers(report: Report) -> dict[str, Any]:
    """Everything on the page but the pictures, as JSON values."""
    summary, dropped = report.summary, [one.verdict for one in report.build.dropped]
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "healthy": not summary.problems,
        "headline": headline(summary),
        "problems": [problem._asdict() for problem in summary.problems],
        "clips": len(summary.clips),
        "seconds": summary.seconds,
        "rules": {
            rule.name: {
                "limits": None if rule.limits is None else rule.limits.model_dump(),
                "measured": len(rule.values),
                "quantiles": dict(zip(map(str, QUANTILES), rule.quantiles, strict=False)),
                "broken": rule.counts.broken,
                "alone": rule.counts.alone,
            }
            for rule in report.rules
        },
        "dropped": {count.rule: count._asdict() for count in count_reasons(dropped) if count.broken},
        "quarantined": len(report.build.quarantined),
        "estimates": {str(ranks): asdict(one) for ranks, one in report.estimates.items()},
    }


def _clip_numbers(found: ClipFindings) -> dict[str, Any]:
    return {
        "clip_id": found.clip_id,
        "decoded": found.decoded,
        "luma": found.luma,
        "reference_track": found.reference_track,
        "values": found.values,
        "broken": found.broken,
        "problems": [problem._asdict() for problem in found.problems],
    }
