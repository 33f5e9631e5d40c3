"""An arm against the baseline of another result: when a race's records are gone, its numbers are still there.

Only the seeds' numbers are there to be paired, so there are no intervals: each seed that both have is told by itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.convergence.results import GAP, LOSS, PCK
from eval.json_files import write_json
from eval.report.learning_curves import times_fewer
from lisa_video.errors import UserError

_ALIKE = (PCK, LOSS, GAP, "detector", "held_out_clips", "first_clips_left_out")
_FLOOR_TOLERANCE = 0.003
"""How far apart PCK (a share) and held-out loss of the two frozen bases may be: bases of one recipe were
0.0020 apart on two machines."""


class Side(NamedTuple):
    """One arm of a file that `results` wrote."""

    file: Path
    arm: str
    found: dict[str, Any]

    @classmethod
    def read(cls, file: Path, arm: str) -> Side:
        """Read an arm's numbers.

        Raises:
            UserError: the file has no such arm.
        """
        found = json.loads(file.read_text(encoding="utf-8"))
        names = [entry["arm"] for entry in found["arms"]]
        if arm not in names:
            raise UserError(f"there is no arm {arm}", where=str(file), remedy=f"one of: {', '.join(names)}")
        return cls(file, arm, found)

    @property
    def protocol(self) -> dict[str, Any]:
        """How it was measured."""
        protocol: dict[str, Any] = self.found["protocol"]
        return protocol

    @property
    def seeds(self) -> list[int]:
        """Seeds that were scored."""
        seeds: list[int] = self.protocol["seeds"]
        return seeds

    def curve(self, measure: str, seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """(S,) steps and (R, S) values of some seeds."""
        numbers, rows = self.numbers(measure), [self.seeds.index(seed) for seed in seeds]
        return np.array(numbers["steps"]), np.array(numbers["per_seed"])[rows]

    def numbers(self, measure: str) -> dict[str, Any]:
        """All that the file says about a measure of the arm."""
        (entry,) = (entry for entry in self.found["arms"] if entry["arm"] == self.arm)
        numbers: dict[str, Any] = entry[measure]
        return numbers


def compare(baseline: Side, arm: Side, out: Path | None) -> None:
    """Print how many times fewer steps the arm needs, had the baseline ended at each of its checkpoints.

    Raises:
        UserError: the two were not measured alike, have no seed in common, or their frozen bases are not equally good.
    """
    _require_alike(baseline, arm)
    seeds = [seed for seed in baseline.seeds if seed in arm.seeds]
    ratios = {measure: _ratios(baseline, arm, measure, seeds) for measure in (PCK, LOSS, GAP)}
    print(f"seeds {seeds}")
    for measure, by_horizon in ratios.items():
        print(f"{measure}: {arm.arm} has what {baseline.arm} ends with in so many times fewer steps")
        for horizon, found in by_horizon.items():
            print(f"  {horizon:>6} steps: {_told(found['mean'])}, by seed {', '.join(map(_told, found['by_seed']))}")
    if out is not None:
        sides = {
            name: {"arm": side.arm, "file": side.file.name, "manifest_digest": side.protocol["manifest_digest"]}
            for name, side in (("baseline", baseline), ("arm", arm))
        }
        write_json(
            out,
            {
                "made_by": "python -m benchmarks.convergence compare",
                **sides,
                "seeds": seeds,
                "times_fewer_steps": ratios,
            },
        )


def _ratios(baseline: Side, arm: Side, measure: str, seeds: list[int]) -> dict[str, dict[str, Any]]:
    sign = -1.0 if measure == LOSS else 1.0
    (steps, theirs), (own_steps, ours) = baseline.curve(measure, seeds), arm.curve(measure, seeds)
    pairs = [(theirs.mean(axis=0), ours.mean(axis=0)), *zip(theirs, ours, strict=True)]
    found = {}
    for place, horizon in enumerate(steps.tolist()[1:], start=1):
        mean, *by_seed = [
            times_fewer(steps[: place + 1], sign * of_baseline[: place + 1], own_steps, sign * of_arm) or None
            for of_baseline, of_arm in pairs
        ]
        found[str(horizon)] = {"mean": mean, "by_seed": by_seed}
    return found


def _told(ratio: float | None) -> str:
    return "never" if ratio is None else f"{ratio:.2f}"


def _require_alike(baseline: Side, arm: Side) -> None:
    for name in _ALIKE:
        if baseline.protocol[name] != arm.protocol[name]:
            raise UserError(
                f"{name}: {arm.protocol[name]}, but {baseline.protocol[name]} in {baseline.file}",
                where=str(arm.file),
                remedy="score both on the same clips",
            )
    if not set(baseline.seeds) & set(arm.seeds):
        message = f"seeds {arm.seeds}, but {baseline.seeds} in {baseline.file}: none in common"
        raise UserError(message, where=str(arm.file), remedy="train the arm with the baseline's seeds")
    for measure in (PCK, LOSS):
        floors = [float(side.curve(measure, side.seeds)[1][:, 0].mean()) for side in (baseline, arm)]
        if abs(floors[0] - floors[1]) > _FLOOR_TOLERANCE:
            raise UserError(
                f"{measure} of the frozen base alone is {floors[1]:.4f}, but {floors[0]:.4f} in {baseline.file}",
                where=str(arm.file),
                remedy="train both on the same base and data",
            )
