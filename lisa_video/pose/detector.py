"""`PoseDetector`: the one face behind which any detector of poses stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, UInt8

from lisa_video.config.detector import SmoothingSettings
from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.skeleton import skeleton_by_name
from lisa_video.pose.smoothing import smooth
from lisa_video.pose.tracking import track


@dataclass(frozen=True)
class People:
    """The people of one frame, in any order.

    Coordinates are pixels with (0, 0) at the outer corner of the frame's top left pixel, as in `Keypoints`.

    Attributes:
        xy: (P, K, 2) pixels; NaN where a joint is unknown.
        score: (P, K) in [0, 1]; 0 where a joint is unknown.
        box: (P, 5): left, top, right, bottom in pixels, and score in [0, 1].
    """

    xy: Float32[np.ndarray, "P K 2"]
    score: Float32[np.ndarray, "P K"]
    box: Float32[np.ndarray, "P 5"]


class PoseDetector(ABC):
    """Finds people's poses in frames.

    A detector says who is in a frame (`find`); people are followed from frame to frame here, alike for all.
    """

    max_people: int = 8
    """Of one clip; those that are seen longest and largest are kept. `load_detector` sets it."""

    smoothing: SmoothingSettings | None = None
    """Of the joints' paths; None: positions stay as they were found. `load_detector` sets it."""

    default_fps: ClassVar[float] = 25.0

    @property
    @abstractmethod
    def name(self) -> str:
        """What the detector is, for protocols."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """`sha256:...` of its weights, for protocols."""

    @property
    @abstractmethod
    def skeleton(self) -> str:
        """Name of the layout of its K joints."""

    @abstractmethod
    def find(self, frames: UInt8[np.ndarray, "F H W 3"]) -> list[People]:
        """People of each frame by itself: nothing is remembered from one frame to the next.

        Args:
            frames: RGB in [0, 255], of any size; F may be 0.

        Returns:
            F items.
        """

    def detect(self, frames: UInt8[np.ndarray, "F H W 3"], fps: float = default_fps) -> Keypoints:
        """`detect_chunks` for frames in memory; `fps` matters to smoothing, and to how long a track may pause."""
        return self.detect_chunks([frames], fps)

    def detect_chunks(self, chunks: Iterable[UInt8[np.ndarray, "_ H W 3"]], fps: float) -> Keypoints:
        """Poses of the people of one clip, with identities; memory holds one chunk, and the poses.

        Args:
            chunks: RGB frames in [0, 255] of a clip, in order, all of one size; at least one frame together.
            fps: frames per second.

        Returns:
            In pixels of the frames. Track 0 is the main person: tracks are sorted by the area of their boxes summed
            over the clip, and `max_people` of them are kept. NaN with score 0 where a person was not found. Without
            people P is 0.
        """
        people = [found for chunk in chunks for found in self.find(chunk)]
        if not people:
            raise ValueError("a clip without frames has no poses")
        identities = track([frame.box for frame in people], fps)
        keypoints = _join(people, identities, self.skeleton, self.max_people)
        return keypoints if self.smoothing is None else smooth(keypoints, fps, self.smoothing)


def _join(people: list[People], identities: list[np.ndarray], skeleton: str, max_people: int) -> Keypoints:
    count = 1 + max((int(ids.max()) for ids in identities if len(ids)), default=-1)
    weight = np.zeros(count)
    for found, ids in zip(people, identities, strict=True):
        sides = found.box[:, 2:4] - found.box[:, :2]
        weight[ids] += np.maximum(sides, 0).prod(axis=1)  # length of the track times its mean area, in the end
    kept = np.argsort(-weight, kind="stable")[:max_people]
    place = np.full(count, -1)
    place[kept] = np.arange(len(kept))
    joints = skeleton_by_name(skeleton).num_joints
    xy = np.full((len(people), len(kept), joints, 2), np.nan, np.float32)
    score = np.zeros((len(people), len(kept), joints), np.float32)
    for frame, (found, ids) in enumerate(zip(people, identities, strict=True)):
        chosen = place[ids] >= 0
        xy[frame, place[ids][chosen]] = found.xy[chosen]
        score[frame, place[ids][chosen]] = found.score[chosen]
    score[np.isnan(xy).any(axis=-1)] = 0
    return Keypoints(xy, score, np.arange(len(kept), dtype=np.int64), skeleton)
