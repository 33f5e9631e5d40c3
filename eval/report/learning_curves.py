"""A score against training steps, over seeds and clips; and how much sooner one arm gets there than another.

    speed-up = t_a(v) / t_b(v),   v = score of a at its last checkpoint,   t_x(v) = first step at which x has v

between checkpoints by linear interpolation, from step 0 on, where every arm is the frozen network alone (a new branch
changes nothing). This is the "iterations to reach the baseline's final value" of the LISA paper (arXiv 2606.27192).
Intervals draw seeds and clips again with replacement, the same ones for both arms and at all checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real

from eval.bootstrap import Estimate
from lisa_video.errors import UserError

RESAMPLES = 2000
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """One arm over its checkpoints, seeds and held-out clips.

    Attributes:
        arm: its name.
        steps: S optimizer steps, rising; the first is 0.
        seeds: R training seeds.
        part: (R, S, N) joints found, or another sum, for each seed, checkpoint and clip.
        whole: (N,) what the sums are divided by: joints to be found in each clip; ones for a mean over clips; a base's
            loss for a share of it.
        lower_is_better: such as a loss.
        percent: whether values are shares.
    """

    arm: str
    steps: Int[np.ndarray, " S"]
    seeds: tuple[int, ...]
    part: Real[np.ndarray, "R S N"]
    whole: Real[np.ndarray, " N"]
    lower_is_better: bool = False
    percent: bool = True

    def __post_init__(self) -> None:
        if self.part.shape != (len(self.seeds), len(self.steps), len(self.whole)):
            raise ValueError(f"{self.arm}: sums {self.part.shape} do not fit seeds, steps and clips")
        if self.steps[0] != 0 or (np.diff(self.steps) <= 0).any():
            raise ValueError(f"{self.arm}: steps must rise from 0, got {self.steps.tolist()}")

    @property
    def values(self) -> Float[np.ndarray, " S"]:
        """Mean over seeds of the micro average over clips, at each checkpoint."""
        once = np.ones((1, len(self.seeds)), np.int64), np.ones((1, len(self.whole)), np.int64)
        mean: np.ndarray = self._resampled(*once)[0]
        return mean

    @property
    def values_per_seed(self) -> Float[np.ndarray, "R S"]:
        """Micro average over clips of each seed."""
        per_seed: np.ndarray = self.part.sum(axis=2) / self.whole.sum()
        return per_seed

    def until(self, step: int) -> LearningCurve:
        """The curve as it was when this step was the last one."""
        count = int((self.steps <= step).sum())
        return replace(self, steps=self.steps[:count], part=self.part[:, :count])

    def band(self, seed: int = 0) -> tuple[Float[np.ndarray, " S"], Float[np.ndarray, " S"]]:
        """Lower and upper end of the 95 % interval at each checkpoint, over seeds and clips together."""
        low, high = np.percentile(self._resampled(*_draws(self, seed)), _PERCENTILES, axis=0)
        return low, high

    def _resampled(self, seeds: Int[np.ndarray, "D R"], clips: Int[np.ndarray, "D N"]) -> Float[np.ndarray, "D S"]:
        """Scores with each seed and clip counted as often as it was drawn."""
        found = np.einsum("dr,dn,rsn->ds", seeds, clips, self.part, optimize=True)
        values: np.ndarray = found / (seeds.sum(axis=1) * (clips @ self.whole))[:, None]
        return values


@dataclass(frozen=True)
class SpeedUp:
    """How many times fewer steps than the baseline an arm needs for the baseline's final score.

    Attributes:
        arm: its name.
        target: the baseline's final score.
        baseline_steps: at which the baseline first has it.
        arm_steps: at which the arm first has it; None: never, within its steps.
        ratio: with its 95 % interval; draws in which the arm never gets there count as 0. None if it never does.
        reached: share of the draws in which the arm gets there.
    """

    arm: str
    target: float
    baseline_steps: float
    arm_steps: float | None
    ratio: Estimate | None
    reached: float


class Difference(NamedTuple):
    """A value minus another at each of S checkpoints, with the ends of its 95 % interval."""

    steps: Int[np.ndarray, " S"]
    value: Float[np.ndarray, " S"]
    low: Float[np.ndarray, " S"]
    high: Float[np.ndarray, " S"]


def difference(baseline: LearningCurve, arm: LearningCurve, *, seed: int = 0) -> Difference:
    """Compare an arm with its baseline at the checkpoints that both have: step 0, where all are equal, and others.

    Seeds and clips are drawn together, so what the two share is gone.

    Raises:
        UserError: the two cannot be paired.
    """
    _require_pairs(baseline, arm)
    steps, theirs, ours = np.intersect1d(baseline.steps, arm.steps, return_indices=True)
    draws = _draws(baseline, seed)
    drawn = arm._resampled(*draws)[:, ours] - baseline._resampled(*draws)[:, theirs]
    low, high = np.percentile(drawn, _PERCENTILES, axis=0)
    return Difference(steps, arm.values[ours] - baseline.values[theirs], low, high)


def final_difference(baseline: LearningCurve, arm: LearningCurve, *, seed: int = 0) -> Estimate:
    """What an arm has at its end minus what the baseline has at its own, whose step may be another; paired.

    Raises:
        UserError: the two cannot be paired.
    """
    _require_pairs(baseline, arm)
    draws = _draws(baseline, seed)
    drawn = arm._resampled(*draws)[:, -1] - baseline._resampled(*draws)[:, -1]
    low, high = np.percentile(drawn, _PERCENTILES)
    return Estimate(float(arm.values[-1] - baseline.values[-1]), float(low), float(high))


def above_floor(arm: LearningCurve, *, seed: int = 0) -> Difference:
    """An arm's values minus those of the frozen network alone (step 0): from when on does it follow the pose at all?"""
    drawn = arm._resampled(*_draws(arm, seed))
    low, high = np.percentile(drawn - drawn[:, :1], _PERCENTILES, axis=0)
    return Difference(arm.steps, arm.values - arm.values[0], low, high)


def speed_up(baseline: LearningCurve, arm: LearningCurve, *, seed: int = 0) -> SpeedUp:
    """Compare an arm with its baseline.

    Raises:
        UserError: the two were not trained with the same seeds, or not scored on the same clips.
    """
    _require_pairs(baseline, arm)
    draws = _draws(baseline, seed)
    sign = -1.0 if baseline.lower_is_better else 1.0
    theirs, ours = sign * baseline._resampled(*draws), sign * arm._resampled(*draws)
    ratios = np.array([times_fewer(baseline.steps, a, arm.steps, b) for a, b in zip(theirs, ours, strict=True)])
    target = float(baseline.values[-1])
    own = first_step(baseline.steps, sign * baseline.values, sign * target)
    assert own is not None  # a curve reaches its own last value
    step = first_step(arm.steps, sign * arm.values, sign * target)
    low, high = np.percentile(ratios, _PERCENTILES)
    ratio = None if step is None else Estimate(_quotient(own, step), float(low), float(high))
    return SpeedUp(arm.arm, target, own, step, ratio, float((ratios > 0).mean()))


def first_step(steps: Int[np.ndarray, " S"], accuracy: Float[np.ndarray, " S"], target: float) -> float | None:
    """First step at which a piecewise linear curve has at least the target; None if it never has."""
    above = np.flatnonzero(accuracy >= target)
    if len(above) == 0:
        return None
    place = int(above[0])
    if place == 0:
        return float(steps[0])
    before, after = accuracy[place - 1], accuracy[place]
    share = (target - before) / (after - before)
    return float(steps[place - 1] + share * (steps[place] - steps[place - 1]))


def times_fewer(
    steps_a: Int[np.ndarray, " S"], a: Float[np.ndarray, " S"],
    steps_b: Int[np.ndarray, " T"], b: Float[np.ndarray, " T"],
) -> float:  # fmt: skip
    """How many times fewer steps b needs to what a ends with, where more is better; 0: it never gets there."""
    own, step = first_step(steps_a, a, a[-1]), first_step(steps_b, b, a[-1])
    assert own is not None
    return 0.0 if step is None else _quotient(own, step)


def _require_pairs(baseline: LearningCurve, arm: LearningCurve) -> None:
    if baseline.seeds != arm.seeds or not np.array_equal(baseline.whole, arm.whole):
        raise UserError(
            f"{arm.arm} and {baseline.arm} cannot be paired: seeds {arm.seeds} and {baseline.seeds}, "
            f"{len(arm.whole)} and {len(baseline.whole)} clips",
            remedy="train both arms with the same seeds and score them on the same clips",
        )


def _quotient(own: float, step: float) -> float:
    # All arms are equal at step 0: if one of them has the target there, so has the other, and nobody is faster.
    return own / step if step > 0 else 1.0


def _draws(curve: LearningCurve, seed: int) -> tuple[Int[np.ndarray, "D R"], Int[np.ndarray, "D N"]]:
    random = np.random.default_rng(seed)

    def draw(count: int) -> np.ndarray:
        return random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)

    return draw(len(curve.seeds)), draw(len(curve.whole))
