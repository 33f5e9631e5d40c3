"""What the rules judge a clip by: plan, probe of the video, keypoints, measures, and which person is meant."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from data_tools.measures import FrameMeasures
from data_tools.records import ClipPlan, Probe
from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.skeleton import VISIBLE_SCORE

MIN_JOINTS = 3
"""A person is in view in a frame if so many of its body joints are visible: fewer have no size worth the name."""

NOTABLE_SIZE = 0.4
"""People smaller than this share of the reference person are bystanders and do not count."""

_NUM_BODY = 17  # COCO's; the whole-body layout begins with them
_PARTS = {"coco_wholebody133": {"face": slice(23, 91), "hand": slice(91, 133)}}  # layout -> part -> joints


@dataclass(frozen=True)
class Evidence:
    """One clip of F frames, P people and J = 17 body joints.

    Attributes:
        plan: which frames of the video.
        probe: of the video; the keypoints are in pixels of its frames.
        keypoints: F frames.
        measures: F frames.
    """

    plan: ClipPlan
    probe: Probe
    keypoints: Keypoints
    measures: FrameMeasures

    @property
    def fps(self) -> float:
        """Frames of the clip per second."""
        return self.plan.fps / self.plan.stride

    @cached_property
    def visible(self) -> Bool[np.ndarray, "F P J"]:
        """Body joints with a place and a score of at least `VISIBLE_SCORE`."""
        body = self.keypoints.score[..., :_NUM_BODY] >= VISIBLE_SCORE
        return body & np.isfinite(self.keypoints.xy[..., :_NUM_BODY, :]).all(axis=-1)

    @cached_property
    def in_view(self) -> Bool[np.ndarray, "F P"]:
        """Frames in which each person is in view, see `MIN_JOINTS`."""
        return self.visible.sum(axis=-1) >= MIN_JOINTS

    @cached_property
    def diagonal(self) -> Float[np.ndarray, "F P"]:
        """Diagonal of the box of each person's visible body joints, pixels; NaN where it is not in view."""
        xy = self.keypoints.xy[..., :_NUM_BODY, :].astype(np.float64)
        low = np.where(self.visible[..., None], xy, np.inf).min(axis=-2)
        high = np.where(self.visible[..., None], xy, -np.inf).max(axis=-2)
        extent = np.where(self.in_view[..., None], high - low, 0.0)  # elsewhere infinite
        return np.where(self.in_view, np.hypot(extent[..., 0], extent[..., 1]), np.nan)

    @cached_property
    def reference(self) -> int | None:
        """Column of the reference person: the largest sum of diagonals over the clip; None if nobody is in view."""
        if not self.in_view.any():
            return None
        return int(np.nansum(self.diagonal, axis=0).argmax())

    @property
    def reference_track(self) -> int | None:
        """Track id of the reference person."""
        return None if self.reference is None else int(self.keypoints.track_id[self.reference])

    @cached_property
    def person_size(self) -> float | None:
        """Median diagonal of the reference person, pixels: the unit of its movements. None if nobody is in view."""
        if self.reference is None:
            return None
        size = float(np.nanmedian(self.diagonal[:, self.reference]))
        return size if size > 0 else None

    @cached_property
    def num_people(self) -> int:
        """The largest number of notable people that at least a tenth of the frames show at once."""
        if self.reference is None or self.person_size is None:
            return 0
        notable = [
            person
            for person in np.flatnonzero(self.in_view.any(axis=0))
            if np.nanmedian(self.diagonal[:, person]) >= NOTABLE_SIZE * self.person_size
        ]
        counts = np.sort(self.in_view[:, notable].sum(axis=1))[::-1]
        return int(counts[-(-len(counts) // 10) - 1])

    def body(self) -> tuple[Float[np.ndarray, "F J 2"], Bool[np.ndarray, "F J"]]:
        """Places (pixels) and visibility of the reference person's body joints; there must be one."""
        assert self.reference is not None
        return (
            self.keypoints.xy[:, self.reference, :_NUM_BODY].astype(np.float64),
            self.visible[:, self.reference] & self.in_view[:, self.reference, None],
        )

    def part_scores(self, part: str) -> Float[np.ndarray, "F K"] | None:
        """Scores of the reference person's "hand" or "face" joints where it is in view.

        None if nobody is in view, or if the layout has no such joints beside the body's.
        """
        joints = _PARTS.get(self.keypoints.skeleton, {}).get(part)
        if self.reference is None or joints is None:
            return None
        return self.keypoints.score[self.in_view[:, self.reference], self.reference, joints]
