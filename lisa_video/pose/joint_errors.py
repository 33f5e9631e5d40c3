"""How far the joints found lie from the true ones: the one table from which every pose accuracy is counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.matching import match_people, people_boxes, visible_joints
from lisa_video.pose.person_size import Normaliser, person_sizes
from lisa_video.pose.skeleton import skeleton_by_name


@dataclass(frozen=True, eq=False)
class JointErrors:
    """Distances of one clip, for F frames and P true people of K joints.

    Attributes:
        present: (F, P) true people with at least one visible joint.
        counted: (F, P, K) visible true joints of people whose size is known: the denominator of PCK.
        size_px: (F, P) see `person_sizes`; 0 where unknown.
        partner: (F, P) index of the person found that was matched; -1 for nobody, which makes all joints misses.
        distance_px: (F, P, K) from the true joint to the one found; NaN where no place was found.
        mirrored_px: (F, P, K) from the true joint to the one found under the mirrored name (left wrist for right
            wrist); NaN where no place was found, and for joints that are their own mirror image.
        extra: (F,) people found that were matched with nobody.
    """

    present: Bool[np.ndarray, "F P"]
    counted: Bool[np.ndarray, "F P K"]
    size_px: Float[np.ndarray, "F P"]
    partner: Int[np.ndarray, "F P"]
    distance_px: Float[np.ndarray, "F P K"]
    mirrored_px: Float[np.ndarray, "F P K"]
    extra: Int[np.ndarray, " F"]

    def hits(self, threshold: float) -> Bool[np.ndarray, "F P K"]:
        """Counted joints whose distance is at most `threshold` sizes."""
        return self._within(self.distance_px, threshold)

    def swapped(self, threshold: float) -> Bool[np.ndarray, "F P K"]:
        """Counted joints that are missed, but would be hit with left and right exchanged."""
        swapped: np.ndarray = self._within(self.mirrored_px, threshold) & ~self.hits(threshold)
        return swapped

    def _within(self, distance: np.ndarray, threshold: float) -> np.ndarray:
        # NaN compares as False: a joint without a place is a miss.
        within: np.ndarray = self.counted & (distance <= threshold * self.size_px[..., None])
        return within


def joint_errors(predicted: Keypoints, truth: Keypoints, normaliser: Normaliser = "box") -> JointErrors:
    """Compare predicted with true poses of the same frames.

    A person is present in a frame if at least one of its joints is visible (score >= `VISIBLE_SCORE`). A true person
    whose size cannot be measured there (for boxes: fewer than two visible joints, or all of them in one place) counts
    nothing. The place of a predicted joint is judged whatever the joint's own score.

    Args:
        predicted: F frames, any number of people, pixels of the same frames as `truth`.
        truth: F frames, any number of people, same layout of joints.
        normaliser: see `person_sizes`.
    """
    if predicted.skeleton != truth.skeleton or predicted.num_frames != truth.num_frames:
        raise ValueError(
            f"prediction has {predicted.num_frames} frames of {predicted.skeleton}, "
            f"truth has {truth.num_frames} of {truth.skeleton}"
        )
    true_xy, true_visible = truth.xy.astype(np.float64), visible_joints(truth)
    found_xy, found_visible = predicted.xy.astype(np.float64), visible_joints(predicted)
    partner = np.full(true_visible.shape[:2], -1, np.int64)
    extra = np.zeros(truth.num_frames, np.int64)
    matched_xy = np.full(true_xy.shape, np.nan)
    for frame in range(truth.num_frames):
        found = people_boxes(found_xy[frame], found_visible[frame])
        pairs = match_people(found, people_boxes(true_xy[frame], true_visible[frame]))
        extra[frame] = len(found) - len(pairs)
        for person, other in pairs.items():
            partner[frame, person] = other
            matched_xy[frame, person] = found_xy[frame, other]
    mirror = skeleton_by_name(truth.skeleton).flip_index
    mirrored = np.linalg.norm(matched_xy[:, :, mirror] - true_xy, axis=-1)
    sizes = person_sizes(truth, normaliser)
    return JointErrors(
        present=np.asarray(true_visible.any(axis=-1)),
        counted=true_visible & (sizes > 0)[..., None],
        size_px=sizes,
        partner=partner,
        distance_px=np.linalg.norm(matched_xy - true_xy, axis=-1),
        mirrored_px=np.where(mirror == np.arange(len(mirror)), np.nan, mirrored),
        extra=extra,
    )
