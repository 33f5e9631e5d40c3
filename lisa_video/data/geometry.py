"""One geometry for frames and keypoints: scale to cover the target, crop the centre, mirror if asked.

Both are moved by the same numbers, so a pose map that is drawn from moved keypoints lies on the moved frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.skeleton import skeleton_by_name


@dataclass(frozen=True)
class Geometry:
    """A map from source pictures to target pictures.

    Attributes:
        source_size: (H, W) in pixels.
        target_size: (h, w) in pixels.
        mirror: swap left and right after the crop.
    """

    source_size: tuple[int, int]
    target_size: tuple[int, int]
    mirror: bool

    def __post_init__(self) -> None:
        if min(*self.source_size, *self.target_size) < 1:
            raise ValueError(f"sizes must be positive, not {self.source_size} and {self.target_size}")

    @property
    def scale(self) -> float:
        """By how much pictures grow; below 1 they shrink."""
        return max(target / source for target, source in zip(self.target_size, self.source_size, strict=True))

    @property
    def resized_size(self) -> tuple[int, int]:
        """(H, W) after scaling and before cropping: one side equals the target's, the other covers it."""
        (height, width), (target_height, target_width) = self.source_size, self.target_size
        if target_height * width >= target_width * height:
            return target_height, max(target_width, round(width * target_height / height))
        return max(target_height, round(height * target_width / width)), target_width

    @property
    def crop_corner(self) -> tuple[int, int]:
        """(top, left) of the crop in the scaled picture, whole pixels."""
        (height, width), (target_height, target_width) = self.resized_size, self.target_size
        return (height - target_height) // 2, (width - target_width) // 2

    def apply_frames(self, frames: UInt8[np.ndarray, "F H W 3"]) -> UInt8[np.ndarray, "F h w 3"]:
        """Move pictures.

        Args:
            frames: (F, H, W, 3) uint8 of `source_size`.

        Returns:
            (F, h, w, 3) uint8 of `target_size`; the input itself if nothing is to be done.
        """
        if frames.shape[1:3] != self.source_size:
            raise ValueError(f"frames of {frames.shape[1:3]} given to a geometry for {self.source_size}")
        height, width = self.resized_size
        if (height, width) != self.source_size:
            # Averaging over the covered area is the only one of cv2's filters that does not alias when shrinking.
            shrinks = height * width < frames.shape[1] * frames.shape[2]
            filter_ = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            frames = np.stack([cv2.resize(frame, (width, height), interpolation=filter_) for frame in frames])
        (top, left), (target_height, target_width) = self.crop_corner, self.target_size
        frames = frames[:, top : top + target_height, left : left + target_width]
        return np.ascontiguousarray(frames[:, :, ::-1] if self.mirror else frames)

    def apply_keypoints(self, keypoints: Keypoints) -> Keypoints:
        """Move the keypoints of such pictures; a mirrored left wrist becomes a right wrist.

        Joints that leave the picture get score 0; their coordinates stay, outside of the picture.
        """
        (height, width), (target_height, target_width) = self.resized_size, self.target_size
        top, left = self.crop_corner
        scale = np.array([width / self.source_size[1], height / self.source_size[0]], np.float32)
        xy = keypoints.xy * scale - np.array([left, top], np.float32)
        score = keypoints.score
        if self.mirror:
            swap = skeleton_by_name(keypoints.skeleton).flip_index
            xy, score = xy[:, :, swap], score[:, :, swap]
            xy[..., 0] = target_width - xy[..., 0]
        inside = ((xy >= 0) & (xy <= np.array([target_width, target_height]))).all(axis=-1)
        return Keypoints(xy, np.where(inside, score, np.float32(0)), keypoints.track_id, keypoints.skeleton)
