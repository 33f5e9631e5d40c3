"""What a report says of learning: accuracy against steps with bands, speed-ups, and LISA by noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eval import pictures
from eval.arms import ArmResult
from eval.learning_curves import LearningCurve, SpeedUp, speed_up
from eval.pictures import Curve, Level, PlotURIs

_SIGMA_BINS = ("sigma below 0.5", "0.5 to 2", "2 to 8", "above 8")


def learning_plots(curves: Sequence[LearningCurve], threshold: float) -> list[PlotURIs]:
    """Pose accuracy of every arm against optimizer steps, with 95 % bands over seeds and clips."""
    lines = [
        Curve(
            f"{curve.arm} ({len(curve.seeds)} seed{'s' * (len(curve.seeds) > 1)})",
            curve.steps.tolist(),
            curve.accuracy.tolist(),
            place,
            True,
            tuple(edge.tolist() for edge in curve.band()),
        )
        for place, curve in enumerate(curves)
    ]
    title = f"PCK@{threshold:g} of all held-out clips against steps"
    return [pictures.curve_plot(title, lines, ylabel="PCK, %", percent=True)] if lines else []


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


def speed_up_sentences(curves: Sequence[LearningCurve]) -> list[str]:
    """For each arm after the baseline: how many times fewer steps it needs for the baseline's final accuracy."""
    return [_sentence(curves[0], speed_up(curves[0], curve), curve) for curve in curves[1:]]


def _sentence(baseline: LearningCurve, result: SpeedUp, curve: LearningCurve) -> str:
    seeds = f"{len(curve.seeds)} seed{'s' * (len(curve.seeds) > 1)}, {len(curve.visible)} clips"
    goal = f"{baseline.arm}'s final {100 * result.target:.1f} %"
    if result.ratio is None:
        return (
            f"{result.arm} never reaches {goal} within {curve.steps[-1]:,} steps "
            f"({100 * result.reached:.0f} % of the bootstrap draws do; {seeds})."
        )
    high = "unbounded" if math.isinf(result.ratio.high) else f"{result.ratio.high:.2f}"
    return (
        f"{result.arm} reaches {goal} after {result.arm_steps:,.0f} steps, {baseline.arm} after "
        f"{result.baseline_steps:,.0f}: {result.ratio.value:.2f} times fewer (95 % interval {result.ratio.low:.2f} to "
        f"{high}, 0 meaning never; {seeds})."
    )
