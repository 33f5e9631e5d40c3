"""Who is who from frame to frame: boxes of people become identities, by overlap alone.

ByteTrack's association (Zhang et al., "ByteTrack: multi-object tracking by associating every detection box", ECCV
2022) in the implementation of Roboflow's `trackers`: a Kalman filter says where each person should be, and boxes are
assigned by their overlap with that. Looks are not compared, so somebody who leaves and comes back later than
`LOST_S` is somebody new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

LOST_S = 1.0
"""Seconds that a person may be unseen and keep the identity."""
_MIN_OVERLAP = 0.1
_GROWN = 0.3
"""Boxes are grown by this share of their sides before they are compared: at few frames per second, or of small people,
boxes of one person in two frames may not touch (Yang et al., "Hard to track objects with irregular motions and similar
appearances?", WACV 2023)."""


def track(boxes: Sequence[Float32[np.ndarray, "_ 5"]], fps: float) -> list[Int[np.ndarray, " _"]]:
    """Give every box an identity.

    Args:
        boxes: for each frame (P, 5): left, top, right, bottom in pixels, score. All are believed: drop the doubtful
            ones before.
        fps: frames per second.

    Returns:
        For each frame (P,) identities from 0, in order of appearance.
    """
    import supervision
    from trackers import BIoU, ByteTrackTracker

    tracker = ByteTrackTracker(
        lost_track_buffer=round(30 * LOST_S),  # the library counts frames of 1/30 s
        frame_rate=fps,
        track_activation_threshold=0.0,
        high_conf_det_threshold=0.0,
        minimum_consecutive_frames=1,
        minimum_iou_threshold=_MIN_OVERLAP,
        iou=BIoU(_GROWN),
    )
    labels: list[dict[int, Any]] = []  # per frame: row -> tracklet
    confirmed: dict[int, Any] = {}
    for frame in boxes:
        known = {id(tracklet) for tracklet in tracker.tracks}
        found = tracker.update(
            supervision.Detections(
                xyxy=frame[:, :4].astype(np.float64), confidence=frame[:, 4], data={"row": np.arange(len(frame))}
            )
        )
        # The library names a person from the second sight on, and the first one matters too.
        born = iter([tracklet for tracklet in tracker.tracks if id(tracklet) not in known])
        confirmed |= {tracklet.tracker_id: tracklet for tracklet in tracker.tracks if tracklet.tracker_id >= 0}
        rows = found.data.get("row", np.zeros(0, int)).tolist()
        labels.append(
            {
                row: confirmed[number] if number >= 0 else next(born)
                for row, number in zip(rows, found.tracker_id.tolist(), strict=True)
            }
        )
    numbers: dict[int, int] = {}
    return [
        np.array([numbers.setdefault(id(frame[row]), len(numbers)) for row in range(len(frame))], np.int64)
        for frame in labels
    ]
