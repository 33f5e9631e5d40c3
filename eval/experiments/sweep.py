"""Sampling settings tried at several values on trained runs: what are they worth, and where does more do harm?

Nothing is trained. Clips and noise are the same at every value, so differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Int

from eval.bootstrap import Estimate, paired_difference_estimate, ratio_estimate
from eval.json_files import write_json
from eval.pose_accuracy.scores import threshold_key
from eval.protocol import require_same_protocol
from eval.report.findings import DASH
from eval.report.page import HEADLINE_THRESHOLD
from eval.report.text_table import aligned, share_cell
from eval.runs.evaluation import Evaluation, Measures, evaluate_all
from eval.runs.generate import GenerationJob
from eval.runs.sample_protocol import sample_protocol
from lisa_video.errors import UserError

_KEY = threshold_key(HEADLINE_THRESHOLD)
PCK = f"PCK@{_KEY}"
_SECTION = "sampling."


@dataclass(frozen=True)
class SweepJob:
    """What is tried.

    Attributes:
        settings: of section `sampling`; all get the same value.
        values: as they would stand in a config; the first is what the others are compared with.
        num_clips: held-out clips.
        overrides: other settings of the runs to change.

    Raises:
        UserError: a setting that training depends on, a value given twice, or one that is not YAML.
    """

    settings: tuple[str, ...]
    values: tuple[str, ...]
    num_clips: int
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for setting in self.settings:
            if not setting.startswith(_SECTION):
                remedy = f"name a setting such as {_SECTION}pose_guidance; train a run for each value of others"
                raise UserError("not a setting of sampling", where=f"--setting {setting}", remedy=remedy)
        where = f"--values {','.join(self.values)}"
        try:
            meant = [yaml.safe_load(value) for value in self.values]  # 1 and 1.0 would be one folder of samples
        except yaml.YAMLError as error:
            raise UserError("not YAML", where=where, remedy="write them as in a config: 2 or [1,20]") from error
        if any(value in meant[:place] for place, value in enumerate(meant)):
            raise UserError("a value twice", where=where, remedy="give each once")

    def at(self, run: str, value: str) -> GenerationJob:
        """A run's clips at one value."""
        own = tuple(f"{setting}={value}" for setting in self.settings)
        return GenerationJob(run, self.num_clips, overrides=(*self.overrides, *own))


@dataclass(frozen=True)
class Swept:
    """An arm at one value, over its runs.

    Attributes:
        value: of the settings.
        pck: by the first detector, at the headline's threshold; the interval is over clips.
        over_first: less that at the first value; paired.
        distances: Frechet distances from the true clips by label, means over runs.
        psnr_db: likeness to the true frames, mean over clips and runs.
        per_run: PCK of each run.
    """

    value: str
    pck: Estimate
    over_first: Estimate
    distances: dict[str, float]
    psnr_db: float
    per_run: list[float]


Arms = dict[str, list[Swept]]
"""By name; an entry a value."""


def sweep(runs: Mapping[str, Sequence[str]], job: SweepJob, measures: Measures, num_processes: int = 1) -> Arms:
    """Sample and score every run at every value; what was scored before is read.

    Args:
        runs: run_dirs of each arm, one a training seed.
        job: what is tried.
        measures: by what to score.
        num_processes: over which the values are spread.

    Raises:
        UserError: no such run or setting, or runs of other clips.
    """
    jobs = {arm: [[job.at(run, value) for run in of_arm] for value in job.values] for arm, of_arm in runs.items()}
    everything = [one for row in zip(*jobs.values(), strict=True) for of_arm in row for one in of_arm]
    protocols = [_but_sampling(one) for one in everything]  # before hours of sampling
    require_same_protocol(protocols)
    found = evaluate_all(everything, measures, num_processes, "sweep")
    return {arm: _swept(job.values, [[found[one] for one in row] for row in table]) for arm, table in jobs.items()}


def _but_sampling(job: GenerationJob) -> dict[str, Any]:
    return {key: value for key, value in sample_protocol(job).items() if key != "sampling"}


def _swept(values: Sequence[str], table: Sequence[Sequence[Evaluation]]) -> list[Swept]:
    """Of one arm: a row a value, a column a run."""
    first, visible = _counts(table[0])
    arm = []
    for value, row in zip(values, table, strict=True):
        correct, _ = _counts(row)
        distances = {part.label: _mean(found.distances[place].frechet.value for found in row)
                     for place, part in enumerate(row[0].distances)}  # fmt: skip
        arm.append(
            Swept(
                value,
                ratio_estimate(correct, visible, seed=0),
                paired_difference_estimate(first, correct, visible, seed=0),
                distances,
                _mean(found.pixels.mean_psnr_db for found in row),
                [found.poses[0].pck[_KEY].value for found in row],
            )
        )
    return arm


def _counts(row: Sequence[Evaluation]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Joints found and joints to be found in each clip, over the runs."""
    place = list(row[0].poses[0].pck).index(_KEY)
    of_runs = [found.poses[0].clips for found in row]
    correct = np.sum([[clip.correct[place] for clip in clips] for clips in of_runs], axis=0)
    return correct, np.sum([[clip.visible for clip in clips] for clips in of_runs], axis=0)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def write_sweep(arms: Arms, runs: Mapping[str, Sequence[str]], job: SweepJob, measures: Measures, path: Path) -> None:
    """All numbers as JSON, with their protocol at the first value."""
    protocol = sample_protocol(job.at(next(iter(runs.values()))[0], job.values[0]))
    told = {**asdict(job), "protocol": protocol, "measures": measures.protocols}
    write_json(path, {**told, "arms": {arm: [asdict(entry) for entry in swept] for arm, swept in arms.items()}})


def _points(gain: Estimate) -> str:
    return f"{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"


def sweep_table(arms: Arms, job: SweepJob) -> str:
    """For the terminal: a row an arm and value."""
    first = next(iter(arms.values()))[0]
    rows = [["arm", ", ".join(job.settings), f"{PCK} %", f"points over {job.values[0]}", *first.distances, "PSNR dB"]]
    for arm, swept in arms.items():
        for entry in swept:
            over = DASH if entry is swept[0] else _points(entry.over_first)
            distances = [f"{value:.3f}" for value in entry.distances.values()]
            rows.append([arm, entry.value, share_cell(entry.pck), over, *distances, f"{entry.psnr_db:.1f}"])
    return "\n".join(aligned(rows))
