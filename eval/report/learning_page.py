"""What a report says of learning: scores against steps with bands, speed-ups, and LISA by noise level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from eval.report import pictures
from eval.report.arms import ArmResult
from eval.report.findings import DASH
from eval.report.learning_curves import LearningCurve, SpeedUp, final_difference, speed_up
from eval.report.pictures import Curve, Level, PlotURIs
from eval.report.tables import Cell, Table, TableRow

_SIGMA_BINS = ("sigma below 0.5", "0.5 to 2", "2 to 8", "above 8")
Curves = Mapping[str, Sequence[LearningCurve]]
"""Measure -> curves of the arms, the baseline's first; the first measure is that of the headline."""


def learning_plots(curves: Curves) -> list[PlotURIs]:
    """Every measure of every arm against optimizer steps, with 95 % bands over seeds and clips."""
    return [_plot(measure, of_arms) for measure, of_arms in curves.items()]


def _plot(measure: str, curves: Sequence[LearningCurve]) -> PlotURIs:
    percent = curves[0].percent
    lines = [
        Curve(
            f"{curve.arm} ({_seeds(curve)})",
            curve.steps.tolist(),
            curve.values.tolist(),
            place,
            True,
            tuple(edge.tolist() for edge in curve.band()),
        )
        for place, curve in enumerate(curves)
    ]
    return pictures.curve_plot(measure, lines, ylabel="%" if percent else "", percent=percent)


def sigma_plots(arms: Sequence[ArmResult]) -> list[PlotURIs]:
    """The LISA ratio by noise level, for each arm that has one."""
    plots = []
    for arm in arms:
        lines = [
            Curve(name, *pictures.smoothed(arm.metrics, f"lisa_ratio/sigma_bin_{number}"), number)
            for number, name in enumerate(_SIGMA_BINS)
        ]
        if any(line.steps for line in lines):
            title = f"{arm.name}: LISA loss over residual, by noise level"
            plots.append(pictures.curve_plot(title, lines, ylabel="ratio", levels=[Level("explains nothing", 1.0)]))
    return plots


def speed_up_sentences(curves: Curves) -> list[str]:
    """For each arm after the baseline: how many times fewer steps it needs, by the first measure."""
    return [
        f"{measure}: {_sentence(of_arms[0], speed_up(of_arms[0], curve), curve)}"
        for measure, of_arms in list(curves.items())[:1]
        for curve in of_arms[1:]
    ]


def learning_tables(curves: Curves) -> list[Table]:
    """What the arms end with, and how much sooner they have what the baseline ends with; none without two arms."""
    if all(len(of_arms) < 2 for of_arms in curves.values()):
        return []
    ends = [
        _end_row(f"{measure}: {curve.arm}", curve, of_arms[0] if place else None)
        for measure, of_arms in curves.items()
        for place, curve in enumerate(of_arms)
    ]
    sooner = [
        TableRow(f"{measure}: {curve.arm}", "arm", _speed_up_cells(speed_up(of_arms[0], curve), curve))
        for measure, of_arms in curves.items()
        for curve in of_arms[1:]
    ]
    heads = ["Baseline's final", "Its steps", "Arm's steps", "Times fewer ↑", "Draws that reach it"]
    return [
        Table("At the last checkpoint", [], ["Value", "Over the baseline", "By seed"], ends, "Measure"),
        Table("Steps to the baseline's final value", [], heads, sooner, "Measure"),
    ]


def _end_row(name: str, curve: LearningCurve, baseline: LearningCurve | None) -> TableRow:
    low, high = (float(edge[-1]) for edge in curve.band())
    unit = " %" if curve.percent else ""
    cells = [Cell(_number(curve.values[-1], curve) + unit, f"{_number(low, curve)} to {_number(high, curve)}")]
    if baseline is None:
        return TableRow(name, "arm", [*cells, Cell(DASH), Cell(DASH)])
    over = final_difference(baseline, curve)
    by_seed = curve.values_per_seed[:, -1] - baseline.values_per_seed[:, -1]
    ends = f"{_number(over.low, curve, '+')} to {_number(over.high, curve, '+')}"
    cells += [Cell(_number(over.value, curve, "+"), ends), Cell(", ".join(_number(x, curve, "+") for x in by_seed))]
    return TableRow(name, "arm", cells)


def _number(value: float, curve: LearningCurve, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f}" if curve.percent else f"{value:{sign}.4f}"


def _speed_up_cells(result: SpeedUp, curve: LearningCurve) -> list[Cell]:
    times = Cell("never")
    if result.ratio is not None:
        times = Cell(f"{result.ratio.value:.2f}", f"{result.ratio.low:.2f} to {_bounded(result.ratio.high)}")
    arm_steps = DASH if result.arm_steps is None else f"{result.arm_steps:,.0f}"
    own = f"{result.baseline_steps:,.0f}"
    return [Cell(_value(result, curve)), Cell(own), Cell(arm_steps), times, Cell(f"{100 * result.reached:.0f} %")]


def _bounded(value: float) -> str:
    return "unbounded" if math.isinf(value) else f"{value:.2f}"


def _value(result: SpeedUp, curve: LearningCurve) -> str:
    return f"{100 * result.target:.1f} %" if curve.percent else f"{result.target:.4g}"


def _sentence(baseline: LearningCurve, result: SpeedUp, curve: LearningCurve) -> str:
    drawn = _seeds(curve) if len(curve.whole) == 1 else f"{_seeds(curve)}, {len(curve.whole)} clips"
    goal = f"{baseline.arm}'s final {_value(result, curve)}"
    if result.ratio is None:
        return (
            f"{result.arm} never reaches {goal} within {curve.steps[-1]:,} steps "
            f"({100 * result.reached:.0f} % of the bootstrap draws do; {drawn})."
        )
    return (
        f"{result.arm} reaches {goal} after {result.arm_steps:,.0f} steps, {baseline.arm} after "
        f"{result.baseline_steps:,.0f}: {result.ratio.value:.2f} times fewer (95 % interval {result.ratio.low:.2f} to "
        f"{_bounded(result.ratio.high)}, 0 meaning never; {drawn})."
    )


def _seeds(curve: LearningCurve) -> str:
    return f"{len(curve.seeds)} seed{'s' * (len(curve.seeds) > 1)}"
