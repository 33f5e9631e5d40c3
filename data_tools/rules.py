"""The rules by which clips are kept or dropped: each measures one number, which the settings hold between limits.

A rule is a pure function of the evidence, without pixels, so limits can be changed without decoding anything. It
answers None where there is nothing to measure, and then cannot be broken. A person size is the diagonal of the box of
the reference person's visible body joints, its median over the clip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data_tools.evidence import MIN_JOINTS, Evidence
from lisa_video.pose.skeleton import DRAWN_SCORE, skeleton_by_name

MOTION_LAG_S = 0.125
"""Motion is measured over this time: at the distance of two frames the detector's noise would count as motion."""
BLACK_LUMA = 10.0
"""A frame that is darker on average (0 to 255) is black."""

_TRIMMED = 0.81  # mean of normal noise's products without their tails over that of all, by simulation
_CUT_NEIGHBOURS = 4  # frames on each side with which a change is compared
_CUT_FLOOR = 4.0  # luma; changes of the neighbours count at least so much, or small ones would look like cuts
_FROZEN_SHARE, _FROZEN_FLOOR, _FROZEN_CEILING = 0.1, 0.1, 0.6  # of the largest tenth of changes; luma; luma


class Rule(NamedTuple):
    """A rule.

    Attributes:
        name: key of its limits in `FilterSettings`.
        measure: evidence -> number, or None.
        unit: what the number counts, read after it.
    """

    name: str
    measure: Callable[[Evidence], float | None]
    unit: str


def people(clip: Evidence) -> float | None:
    """People in view at once, bystanders not counted.

    What counts is said in `Evidence.num_people`. The model is told one reference person: a second one of like size has
    nobody to stand for in the reference.
    """
    return clip.num_people


def seen(clip: Evidence) -> float | None:
    """Share of the frames in which the reference person is in view: elsewhere the pose map is empty."""
    return None if clip.reference is None else clip.in_view[:, clip.reference].mean()


def track_breaks(clip: Evidence) -> float | None:
    """How often the reference person vanishes and returns: lost detections, or something that passes before it."""
    if clip.reference is None:
        return None
    frames = np.flatnonzero(clip.in_view[:, clip.reference])
    return int((np.diff(frames) > 1).sum())


def person_jump(clip: Evidence) -> float | None:
    """Largest move of the body between neighbouring frames, person sizes: a track that changed to somebody else.

    The move is the median over the joints seen in both frames, so a single wrong joint does not count.
    """
    if clip.person_size is None:
        return None
    xy, visible = clip.body()
    moves = np.where((visible[1:] & visible[:-1])[..., None], np.diff(xy, axis=0), np.nan)
    moves = moves[np.isfinite(moves[..., 0]).sum(axis=1) >= MIN_JOINTS]
    if not len(moves):
        return None
    middle = np.nanmedian(moves, axis=1)
    return np.hypot(middle[:, 0], middle[:, 1]).max() / clip.person_size


def person_size(clip: Evidence) -> float | None:
    """Person size over the shorter side of the frame: small people have no hands and no face after resizing."""
    if clip.person_size is None:
        return None
    return clip.person_size / min(clip.probe.width, clip.probe.height)


def visible_joints(clip: Evidence) -> float | None:
    """Mean share of the 17 body joints that are visible while the person is in view."""
    if clip.reference is None:
        return None
    _, visible = clip.body()
    return visible[clip.in_view[:, clip.reference]].mean()


def visible_torso(clip: Evidence) -> float | None:
    """Share of the frames in view that show a shoulder and a hip: the pose of the body hangs on the torso."""
    if clip.reference is None:
        return None
    _, visible = clip.body()
    joints = skeleton_by_name(clip.keypoints.skeleton).joints
    shoulder = visible[:, [joints.index("left_shoulder"), joints.index("right_shoulder")]].any(axis=1)
    hip = visible[:, [joints.index("left_hip"), joints.index("right_hip")]].any(axis=1)
    return np.asarray(shoulder & hip)[clip.in_view[:, clip.reference]].mean()


def body_score(clip: Evidence) -> float | None:
    """Mean score of the body joints that will be drawn: how sure the detector is of them."""
    if clip.reference is None:
        return None
    scores = clip.keypoints.score[clip.in_view[:, clip.reference], clip.reference, : clip.visible.shape[-1]]
    return scores[scores >= DRAWN_SCORE].mean()


def hand_score(clip: Evidence) -> float | None:
    """Mean score of all hand joints while the person is in view, whole-body layouts only."""
    scores = clip.part_scores("hand")
    return None if scores is None else scores.mean()


def face_score(clip: Evidence) -> float | None:
    """Mean score of all face joints while the person is in view, whole-body layouts only."""
    scores = clip.part_scores("face")
    return None if scores is None else scores.mean()


def jitter(clip: Evidence) -> float | None:
    """Standard deviation per axis of the joints' trembling, person sizes.

    Trembling is noise that is new in each frame. It makes neighbouring second differences point against each other,
    by -4 times its variance an axis, whereas true acceleration makes them point the same way: at 12 fps a jump has
    second differences as large as those of a bad detector, but of one direction. The acceleration of the body as a
    whole is taken off first; the tenth of the products at each end is left out, so single wrong joints do not count.
    """
    if clip.person_size is None:
        return None
    xy, visible = clip.body()
    second = np.diff(xy, n=2, axis=0)
    known = visible[2:] & visible[1:-1] & visible[:-2]
    empty = ~known.any(axis=1)[:, None, None]  # frames without a joint: 0 there, as nothing has no median
    second = second - np.nanmedian(
        np.where(empty, 0, np.where(known[..., None], second, np.nan)), axis=1, keepdims=True
    )
    products = (second[1:] * second[:-1]).sum(axis=-1)[known[1:] & known[:-1]]
    if not len(products):
        return None
    low, high = np.quantile(products, [0.1, 0.9], method="nearest")  # of few, at least one is left
    mean = products[(products >= low) & (products <= high)].mean()
    return np.sqrt(max(0.0, -mean / (2 * 4 * _TRIMMED))) / clip.person_size


def motion(clip: Evidence) -> float | None:
    """Mean speed of the joints, person sizes per second: stills teach nothing, and a blur of motion teaches blur."""
    if clip.person_size is None:
        return None
    xy, visible = clip.body()
    lag = max(1, round(MOTION_LAG_S * clip.fps))
    moves = (xy[lag:] - xy[:-lag])[visible[lag:] & visible[:-lag]]
    return np.hypot(moves[:, 0], moves[:, 1]).mean() / clip.person_size * clip.fps / lag if len(moves) else None


def black_frames(clip: Evidence) -> float | None:
    """Share of the frames that are black: fades and gaps."""
    return (clip.measures.luma < BLACK_LUMA).mean()


def frozen_frames(clip: Evidence) -> float | None:
    """Share of the frames that repeat the one before: rates converted by doubling frames, recordings that stalled.

    A repeated frame comes back from compression with small changes, so "the same" is measured against the clip's own.
    """
    change = clip.measures.change[1:]
    if not len(change):
        return None
    limit = np.clip(_FROZEN_SHARE * np.quantile(change, 0.9), _FROZEN_FLOOR, _FROZEN_CEILING)
    return (change < limit).mean()


def sharpness(clip: Evidence) -> float | None:
    """Median sharpness of the frames, 0 blurred to 1 sharp: finds gross blur only, see `measures.py`."""
    return _median(clip.measures.sharpness)


def borders(clip: Evidence) -> float | None:
    """Share of height or width, whichever is more, taken by even borders (letterbox, pillarbox)."""
    top, bottom, left, right = clip.measures.bars.T
    return max(np.median(top + bottom), np.median(left + right))


def fixed_text(clip: Evidence) -> float | None:
    """Evidence of text or a logo that stays put while the picture moves: see `burned_in.py`; median of the frames."""
    return _median(clip.measures.fixed_text)


def sudden_text(clip: Evidence) -> float | None:
    """Evidence of text that comes or goes, at its strongest: no model can foresee it; see `burned_in.py`."""
    evidence = clip.measures.sudden_text
    return None if np.isnan(evidence).all() else np.nanmax(evidence)


def cut(clip: Evidence) -> float | None:
    """Largest change between two frames over the median of the changes around it: a missed cut, a flash."""
    change = clip.measures.change[1:]
    if len(change) < 3:
        return None
    ratios = []
    for place, value in enumerate(change):
        near = np.concatenate([
            change[max(0, place - _CUT_NEIGHBOURS) : place], change[place + 1 : place + 1 + _CUT_NEIGHBOURS]
        ])  # fmt: skip
        ratios.append(value / max(np.median(near), _CUT_FLOOR))
    return max(ratios)


def short_side(clip: Evidence) -> float | None:
    """Shorter side of the frames, pixels: what is smaller than the training size has to be blown up."""
    return min(clip.probe.width, clip.probe.height)


def aspect(clip: Evidence) -> float | None:
    """Longer over shorter side of the frames: cropping to the training size cuts away most of a panorama."""
    return max(clip.probe.width, clip.probe.height) / min(clip.probe.width, clip.probe.height)


def fps_deviation(clip: Evidence) -> float | None:
    """Difference of the clip's frame rate to its video's, if that varies: else 0. Motion has an uneven speed there."""
    return abs(clip.plan.fps / clip.probe.fps - 1) if clip.probe.variable_rate else 0.0


RULES = (
    Rule("people", people, "people in view"),
    Rule("seen", seen, "of the frames show the person"),
    Rule("track_breaks", track_breaks, "breaks of the track"),
    Rule("person_jump", person_jump, "person sizes moved between frames"),
    Rule("person_size", person_size, "of the frame's short side"),
    Rule("visible_joints", visible_joints, "of the body joints visible"),
    Rule("visible_torso", visible_torso, "of the frames show the torso"),
    Rule("body_score", body_score, "mean body score"),
    Rule("hand_score", hand_score, "mean hand score"),
    Rule("face_score", face_score, "mean face score"),
    Rule("jitter", jitter, "person sizes of trembling"),
    Rule("motion", motion, "person sizes per second"),
    Rule("black_frames", black_frames, "of the frames black"),
    Rule("frozen_frames", frozen_frames, "of the frames repeated"),
    Rule("sharpness", sharpness, "sharpness"),
    Rule("borders", borders, "of height or width are borders"),
    Rule("fixed_text", fixed_text, "evidence of fixed text"),
    Rule("sudden_text", sudden_text, "evidence of text that comes or goes"),
    Rule("cut", cut, "times the usual change between two frames"),
    Rule("short_side", short_side, "pixels of short side"),
    Rule("aspect", aspect, "aspect ratio"),
    Rule("fps_deviation", fps_deviation, "off the video's frame rate"),
)
"""All rules, in the order in which a dropped clip is counted: the first broken one is its reason."""


def _median(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else np.nanmedian(values)
