"""What a comparison found, in sentences that hold whichever arm wins."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eval.bootstrap import Estimate
from eval.pose_accuracy.scores import Scores, pck_difference, threshold_key
from eval.report.arms import ArmResult
from eval.runs.held_out_loss import pose_gap_difference

DASH = "\N{EN DASH}"
"""Stands where there is no number."""


def headline(arms: Sequence[ArmResult], threshold: float) -> str:
    """One sentence: which of the first and the last arm follows the pose better, or that this cannot be said."""
    first, last = arms[0], arms[-1]
    if len(arms) == 1:
        return f"{first.name} reaches {_pck(first, threshold)} on {_clips(first.scores)}."
    difference = pck_difference(first.scores, last.scores, threshold)
    better, worse = (last, first) if difference.value >= 0 else (first, last)
    values = f"{_pck(better, threshold)} against {percent(_value(worse, threshold))} on {_clips(first.scores)}"
    if difference.excludes_zero:
        return (
            f"{better.name} follows the pose better than {worse.name}: {values}, a difference of {_points(difference)}."
        )
    return (
        f"No difference between {first.name} and {last.name} can be claimed: {values}; "
        f"the interval of the difference, {_points(difference)}, includes zero."
    )


def remarks(
    arms: Sequence[ArmResult], floor: ArmResult | None, threshold: float, ceiling: ArmResult | None = None
) -> list[str]:
    """Further sentences: against the floor and the ceilings, Frechet distance, speed, and what the intervals mean."""
    said = []
    if floor is not None:
        said += [_against_floor(arm, floor, threshold) for arm in arms]
    scores = arms[0].scores
    detected = scores.ceiling[threshold_key(threshold)]
    said.append(
        f"On the true frames the detector itself reaches PCK@{threshold:g} {percent(detected.value)}: "
        "no arm can be told from perfect above that."
    )
    said += [_other_detector(arms, threshold, place) for place in range(1, len(arms[0].evaluation.poses))]
    if ceiling is not None:
        distances = ", ".join(f"{part.label} {number(part.frechet.value)}" for part in ceiling.evaluation.distances)
        said.append(
            f"{ceiling.name} has {_pck(ceiling, threshold)}, {distances} and "
            f"{ceiling.evaluation.pixels.mean_psnr_db:.1f} dB: what the frozen VAE lets a perfect sample keep."
        )
    said += [_distances(arms, place) for place in range(len(arms[0].evaluation.distances))]
    if sentence := _pose_gap(arms):
        said.append(sentence)
    if len(arms) > 1 and (sentence := _speed(arms[0], arms[-1], threshold)):
        said.append(sentence)
    said.append(
        "Intervals of tables and bars cover the choice of clips, not the training seed: each arm is one training run."
    )
    return said


def _other_detector(arms: Sequence[ArmResult], threshold: float, place: int) -> str:
    """What a further detector says; its numbers must not be mixed with the first one's."""
    parts = [arm.evaluation.poses[place] for arm in arms]
    key, name = threshold_key(threshold), parts[0].detector.split(",")[0]
    values = ", ".join(f"{arm.name} {percent(one.pck[key].value)}" for arm, one in zip(arms, parts, strict=True))
    said = f"By {name}: PCK@{key} {values}; on the true frames {percent(parts[0].ceiling[key].value)}"
    if len(arms) == 1:
        return f"{said}."
    gain = pck_difference(parts[0], parts[-1], threshold)
    return f"{said}. {_gain(arms, gain)}"


def _pose_gap(arms: Sequence[ArmResult]) -> str:
    """What the poses are worth to the branches; nothing without the losses."""
    losses = [arm.evaluation.loss for arm in arms if arm.evaluation.loss is not None]
    if len(losses) < len(arms):
        return ""
    values = ", ".join(f"{arm.name} {percent(loss.pose_gap.value)}" for arm, loss in zip(arms, losses, strict=True))
    said = f"With the poses of another clip the held-out loss rises, in shares of the frozen model's: {values}."
    return said if len(arms) == 1 else f"{said} {_gain(arms, pose_gap_difference(losses[0], losses[-1]))}"


def _gain(arms: Sequence[ArmResult], gain: Estimate) -> str:
    verdict = "beyond chance" if gain.excludes_zero else "the interval includes zero"
    return f"{arms[-1].name} less {arms[0].name}: {_signed(gain)}, {verdict}."


def _distances(arms: Sequence[ArmResult], place: int) -> str:
    parts = [arm.evaluation.distances[place] for arm in arms]
    first = parts[0]
    values = ", ".join(f"{arm.name} {number(one.frechet.value)}" for arm, one in zip(arms, parts, strict=True))
    said = f"{first.label} to the true clips ({first.protocol['features']['name']}): {values}"
    if math.isnan(first.floor):
        return f"{said}; too few clips for a real-against-real floor."
    said += f". One half of the true clips lies {number(first.floor)} from the other."
    if first.clips <= first.dimension:
        said += f" {first.clips} clips for {first.dimension} dimensions make it far too large: compare these arms only."
    return said


def number(value: float) -> str:
    """A distance with three digits; a dash for NaN."""
    return DASH if math.isnan(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def percent(value: float) -> str:
    """A share as a percentage with one decimal; a dash for NaN."""
    return DASH if math.isnan(value) else f"{100 * value:.1f} %"


def percent_interval(estimate: Estimate) -> str:
    """The 95 % interval of a share, in percent."""
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def first_step_reaching(arm: ArmResult, threshold: float, target: float) -> int | None:
    """First logged step at which the preview's PCK is at least `target`."""
    key = f"pck_{threshold_key(threshold)}"
    steps = [int(row["step"]) for row in arm.metrics if row.get(key, -math.inf) >= target]
    return min(steps, default=None)


def _speed(first: ArmResult, last: ArmResult, threshold: float) -> str:
    """How soon the last arm's previews reached what the first arm's previews ended at, or never did."""
    key = f"pck_{threshold_key(threshold)}"
    previews = [(int(row["step"]), float(row[key])) for row in first.metrics if key in row]
    if not previews or not any(key in row for row in last.metrics):
        return ""
    end_step, end_value = max(previews)
    step = first_step_reaching(last, threshold, end_value)
    goal = f"PCK@{threshold:g} {percent(end_value)}, where {first.name} ended after {end_step} steps"
    if step is None:
        return f"In the previews during training {last.name} never reached {goal}."
    own_step = first_step_reaching(first, threshold, end_value)
    return f"In the previews during training {last.name} reached {goal}, at step {step} ({first.name}: {own_step})."


def _against_floor(arm: ArmResult, floor: ArmResult, threshold: float) -> str:
    gain = pck_difference(floor.scores, arm.scores, threshold)
    if not gain.excludes_zero:
        return f"{arm.name} cannot be told from the floor ({floor.name}): difference {_points(gain)}."
    return f"{arm.name} lies {'above' if gain.value > 0 else 'BELOW'} the floor ({floor.name}) by {_points(gain)}."


def _points(estimate: Estimate) -> str:
    low, high = estimate.low, estimate.high
    value = estimate.value
    if value < 0 and high < 0:  # the sentence names the winner, so the size is given without a sign
        value, low, high = -value, -high, -low
    return f"{100 * value:.1f} points (95 % interval {100 * low:.1f} to {100 * high:.1f})"


def _signed(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.1f} points ({100 * estimate.low:+.1f} to {100 * estimate.high:+.1f})"


def _pck(arm: ArmResult, threshold: float) -> str:
    return f"PCK@{threshold:g} {percent(_value(arm, threshold))}"


def _value(arm: ArmResult, threshold: float) -> float:
    return arm.scores.pck[threshold_key(threshold)].value


def _clips(scores: Scores) -> str:
    return f"{len(scores.clips)} clips"
