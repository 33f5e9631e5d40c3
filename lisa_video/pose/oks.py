"""Object keypoint similarity (OKS) and the average precision that COCO makes of it.

    OKS = mean over visible true joints of exp(-d² / (2 a (2 σ)²))

`d` distance in pixels, `a` area of the person in square pixels, `σ` the joint's constant. Average precision follows
https://cocodataset.org/#keypoints-eval (pycocotools' `COCOeval`): OKS 0.50, 0.55 ... 0.95, at most 20 people found per
frame, 101 recall levels. Two things that COCO takes from its annotations are defined here: the area is that of the box
of the person's visible true joints, and a person found is as sure as its joints are on average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.matching import people_boxes, visible_joints
from lisa_video.pose.skeleton import skeleton_by_name

OKS_THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""The ten similarities over which AP is averaged; the first is AP50, the sixth AP75."""
AREA = "box of the visible true keypoints"
PERSON_SCORE = "mean over all joints"
_MAX_FOUND = 20
_RECALLS = np.linspace(0.0, 1.0, 101)
_CHUNK = 2**21  # numbers at a time


@dataclass(frozen=True, eq=False)
class OKSMatches:
    """The people found in the frames of one clip, in the order of frames.

    Attributes:
        score: (D,) how sure the detector is.
        hit: (T, D) matched with a true person at each of `OKS_THRESHOLDS`.
        ignored: (T, D) neither right nor wrong: unmatched in a frame with a person of unknown area.
        true_people: true people over all frames, without those of unknown area.
        oks: (N,) similarity of each of them to the best person found in the frame; 0 where nobody was.
    """

    score: Float[np.ndarray, " D"]
    hit: Bool[np.ndarray, "T D"]
    ignored: Bool[np.ndarray, "T D"]
    true_people: int
    oks: Float[np.ndarray, " N"]


def similarity(
    found_xy: Float[np.ndarray, "D K 2"],
    true_xy: Float[np.ndarray, "G K 2"],
    visible: Bool[np.ndarray, "G K"],
    area: Float[np.ndarray, " G"],
    sigmas: Float[np.ndarray, " K"],
) -> Float[np.ndarray, "D G"]:
    """OKS of every person found with every true person, in [0, 1].

    Args:
        found_xy: pixels; an unknown (NaN) joint has similarity 0.
        true_xy: pixels; finite where visible.
        visible: joints that count; at least one each.
        area: square pixels, above 0.
        sigmas: COCO's constants.
    """
    squares = ((found_xy[:, None] - true_xy[None]) ** 2).sum(axis=-1)  # (D,G,K)
    exponents = squares / (2.0 * area[:, None] * (2.0 * sigmas) ** 2)
    likeness = np.where(visible & np.isfinite(exponents), np.exp(-np.nan_to_num(exponents)), 0.0)
    mean: np.ndarray = likeness.sum(axis=-1) / visible.sum(axis=-1)
    return mean


def match_by_oks(predicted: Keypoints, truth: Keypoints) -> OKSMatches:
    """Match the people of each frame at each threshold, the surest first, each with the most similar one left.

    Present are people with at least one visible joint (score >= `VISIBLE_SCORE`), on both sides.

    Args:
        predicted: F frames, pixels of the same frames as `truth`.
        truth: F frames, same layout of joints.
    """
    if predicted.skeleton != truth.skeleton or predicted.num_frames != truth.num_frames:
        raise ValueError(f"{predicted.num_frames} frames of {predicted.skeleton} given for {truth.num_frames} frames")
    sigmas = np.array(skeleton_by_name(truth.skeleton).oks_sigmas)
    true_visible, found_visible = visible_joints(truth), visible_joints(predicted)
    scores, hits, ignored, oks = [np.zeros(0)], [_none(0)], [_none(0)], [np.zeros(0)]
    for frame in range(truth.num_frames):
        true_xy = truth.xy[frame].astype(np.float64)
        area = _areas(true_xy, true_visible[frame])
        known = area > 0
        present = np.flatnonzero(found_visible[frame].any(axis=-1))
        sure = predicted.score[frame, present].astype(np.float64).mean(axis=-1)
        order = np.argsort(-sure, kind="stable")[:_MAX_FOUND]
        present = present[order]
        alike = similarity(
            predicted.xy[frame, present].astype(np.float64), true_xy[known], true_visible[frame, known], area[known],
            sigmas,
        )  # fmt: skip
        hit = _greedy(alike)
        scores.append(sure[order])
        hits.append(hit)
        ignored.append(~hit & bool((true_visible[frame].any(axis=-1) & ~known).any()))
        oks.append(alike.max(axis=0, initial=0.0))
    similarities = np.concatenate(oks)
    return OKSMatches(
        np.concatenate(scores), np.concatenate(hits, axis=1), np.concatenate(ignored, axis=1),
        len(similarities), similarities,
    )  # fmt: skip


def average_precision(
    matches: Sequence[OKSMatches], weights: Int[np.ndarray, "R N"] | None = None
) -> Float[np.ndarray, "R T"]:
    """AP at each threshold over all frames of all clips together; NaN without true people.

    Args:
        matches: one a clip, N clips.
        weights: how often each clip counts in each of R cases, such as the draws of a bootstrap; None: each once.
    """
    weights = np.ones((1, len(matches)), np.int64) if weights is None else weights
    clip = np.repeat(np.arange(len(matches)), [len(match.score) for match in matches])
    order = np.argsort(-np.concatenate([match.score for match in matches]), kind="stable")
    clip = clip[order]
    hit = np.concatenate([match.hit for match in matches], axis=1)[:, order]
    wrong = ~hit & ~np.concatenate([match.ignored for match in matches], axis=1)[:, order]
    people = weights @ np.array([match.true_people for match in matches])
    cases = max(1, _CHUNK // max(1, hit.size))
    return np.concatenate(
        [
            _areas_under(hit, wrong, weights[start : start + cases, clip], people[start : start + cases])
            for start in range(0, len(weights), cases)
        ]
    )


def _areas_under(
    hit: Bool[np.ndarray, "T D"],
    wrong: Bool[np.ndarray, "T D"],
    counted: Int[np.ndarray, "R D"],
    people: Int[np.ndarray, " R"],
) -> Float[np.ndarray, "R T"]:
    """Mean over 101 levels of recall of the best precision at that recall or above; 0 where it is never reached."""
    found, false = (np.cumsum(kind * counted[:, None], axis=-1) for kind in (hit, wrong))  # (R,T,D)
    precision = found / np.maximum(found + false, 1)
    best = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    with np.errstate(invalid="ignore"):
        reached = np.searchsorted(_RECALLS, found / people[:, None, None].astype(np.float64), side="right")
    # Each person found is worth the precision there, for the levels of recall that are first reached with it.
    newly = np.diff(reached, axis=-1, prepend=0)
    return np.where(people[:, None] > 0, (best * newly).sum(axis=-1) / len(_RECALLS), np.nan)


def _greedy(alike: Float[np.ndarray, "D G"]) -> Bool[np.ndarray, "T D"]:
    hit = _none(len(alike))
    for place, threshold in enumerate(OKS_THRESHOLDS):
        left = np.ones(alike.shape[1], bool)
        for person, row in enumerate(alike):
            open_row = np.where(left, row, -1.0)
            if left.any() and open_row.max() >= threshold:
                # Of equals COCO takes the last one.
                left[len(row) - 1 - int(open_row[::-1].argmax())] = False
                hit[place, person] = True
    return hit


def _areas(xy: Float[np.ndarray, "P K 2"], visible: Bool[np.ndarray, "P K"]) -> Float[np.ndarray, " P"]:
    areas = np.zeros(len(xy))
    for person, box in people_boxes(xy, visible).items():
        areas[person] = (box[2:] - box[:2]).prod()
    return areas


def _none(people: int) -> Bool[np.ndarray, "T D"]:
    return np.zeros((len(OKS_THRESHOLDS), people), bool)
