"""All the people of a frame, with MediaPipe's networks, which see one person at a time.

Three steps, repeated: square windows over the frame are searched; each find is looked at closely, in a picture of its
own, which gives the joints; and people who were found are painted over, so that the next search sees the others.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from lisa_video.config.detector import PersonSettings
from lisa_video.pose.detector import People
from lisa_video.pose.detectors.boxes import PersonDetector
from lisa_video.pose.detectors.mediapipe_graphs import (
    BODY_MODELS,
    HAND_AND_FACE_MODELS,
    BodyLandmarks,
    BodySearch,
    models_digest,
)
from lisa_video.pose.skeleton import COCO17

_FILLED = 0.3
"""Share of a window's side that a person must fill to be found reliably (measured on rendered people)."""
_OVERLAP = 0.5
"""Of neighbouring windows, share of their side."""
_ROUNDS = 3
"""Searches of a window at most; a round more found nobody in any of 48 composed pictures."""
_CLOSE_UP = 1.25
"""Half the side of the picture of one person, over the radius of the circle around the body; MediaPipe's own."""
_CLOSE_UP_PX = 256
"""Smallest side of that picture; smaller ones are enlarged."""
_MIN_VISIBILITY = 0.65
"""Mean visibility of the joints inside the frame below which a find is no person; a bare arm reaches 0.57 to 0.71."""

# How thick a person is painted, over the diagonal of the box of the joints.
_LIMB, _HEAD = 0.10, 0.10
_TRUNK = [COCO17.joints.index(name) for name in ("left_shoulder", "right_shoulder", "right_hip", "left_hip")]
_BODY = len(COCO17.joints)


class MediaPipePeople(PersonDetector):
    """MediaPipe's search for people, also as boxes for other pose detectors.

    Args:
        min_score: of the search, in [0, 1]; weaker finds are not looked at.
        smallest: height of the smallest people that are looked for, over the frame's shorter side. Smaller ones are
            often found too; half the value takes about five times as long.
        wholebody: joints in `coco_wholebody133`, otherwise in `coco17`.
    """

    def __init__(self, *, min_score: float = 0.5, smallest: float = 0.3, wholebody: bool = False) -> None:
        self._search, self._landmarks = BodySearch(min_score), BodyLandmarks(wholebody)
        self._smallest, self._wholebody = smallest, wholebody

    @classmethod
    def from_settings(cls, settings: PersonSettings, wholebody: bool = False) -> MediaPipePeople:
        """Of these settings.

        Raises:
            UserError: MediaPipe is not installed.
        """
        return cls(min_score=settings.min_score, smallest=settings.smallest, wholebody=wholebody)

    @property
    def name(self) -> str:
        """See `PersonDetector`."""
        return f"MediaPipe search, people from {self._smallest:g} of the shorter side"

    @property
    def digest(self) -> str:
        """See `PersonDetector`."""
        return models_digest(BODY_MODELS + HAND_AND_FACE_MODELS if self._wholebody else BODY_MODELS)

    def boxes(self, frames: UInt8[np.ndarray, "F H W 3"]) -> list[np.ndarray]:
        """See `PersonDetector`."""
        return [self.people(frame).box for frame in frames]

    def people(self, frame: UInt8[np.ndarray, "H W 3"]) -> People:
        """Joints and boxes of the people of one frame, best first."""
        found: list[tuple[np.ndarray, np.ndarray]] = []
        taken = np.zeros(frame.shape[:2], bool)  # pixels of people who were found
        picture, windows = frame.copy(), _windows(frame.shape[:2], self._smallest / _FILLED)
        for _ in range(_ROUNDS):
            circles = [self._search_window(picture, window) for window in windows]
            windows = [window for window, some in zip(windows, circles, strict=True) if len(some)]
            silhouettes = []
            for circle in _distinct(np.concatenate([np.zeros((0, 4)), *circles])):
                person = self.joints_within(picture, circle)
                if person is not None and not _is_known(person, taken):
                    found.append(person)
                    silhouettes.append(_silhouette(person[0][:_BODY], taken.shape))
                    taken |= silhouettes[-1]
            for silhouette in silhouettes:
                _paint_over(picture, silhouette, taken)
            if not silhouettes:
                break
        return _to_people(found, frame.shape[:2], self._landmarks.num_joints)

    def joints_within(
        self, frame: UInt8[np.ndarray, "H W 3"], circle: Float[np.ndarray, " 4"]
    ) -> tuple[Float[np.ndarray, "K 2"], Float[np.ndarray, " K"]] | None:
        """Joints and scores of the person within a circle (x, y, radius), in pixels of the frame; None: nobody."""
        half = max(circle[2] * _CLOSE_UP, 1.0)
        corner = circle[:2] - half
        scale = max(1.0, _CLOSE_UP_PX / (2 * half))
        side = round(2 * half * scale)
        # cv2 counts from pixel centres, circles from the outer corner.
        matrix = np.array([[scale, 0, 0.0], [0, scale, 0.0]])
        matrix[:, 2] = scale * (0.5 - corner) - 0.5
        found = self._landmarks(cv2.warpAffine(frame, matrix, (side, side), flags=cv2.INTER_LINEAR))
        if found is None:
            return None
        xy, score = found[0] / scale + corner, found[1]
        inside = _inside(xy, frame.shape[:2])
        score = np.where(inside, score, 0.0)
        body = inside[:_BODY]
        if not body.any() or score[:_BODY][body].mean() < _MIN_VISIBILITY:
            return None
        return xy, score

    def _search_window(self, picture: np.ndarray, window: tuple[int, int, int, int]) -> Float[np.ndarray, "N 4"]:
        left, top, right, bottom = window
        return self._search(picture[top:bottom, left:right]) + [left, top, 0, 0]


def _windows(size: tuple[int, int], largest: float) -> list[tuple[int, int, int, int]]:
    """Left, top, right, bottom of the windows, pixels: the frame, then squares of its shorter side, its half, ..."""
    height, width = size
    shorter = min(size)
    windows = [(0, 0, width, height)]
    levels = max(0, int(np.ceil(np.log2(1 / largest) - 0.01)))
    for level in range(levels + 1):
        side = max(1, round(shorter * max(0.5**level, min(largest, 1.0))))
        tops, lefts = (_starts(length, side) for length in size)
        windows += [(left, top, left + side, top + side) for top in tops for left in lefts]
    return list(dict.fromkeys(windows))


def _starts(length: int, side: int) -> list[int]:
    """Where windows of a side begin, so that they cover a length with at least `_OVERLAP`."""
    count = 1 + int(np.ceil((length - side) / (side * (1 - _OVERLAP)) - 1e-9))
    return np.linspace(0, length - side, count).round().astype(int).tolist()


def _distinct(circles: Float[np.ndarray, "N 4"]) -> list[np.ndarray]:
    """Best first, without those that are another one again."""
    kept: list[np.ndarray] = []
    for circle in circles[np.argsort(-circles[:, 3], kind="stable")]:
        distances = [np.hypot(*(circle[:2] - other[:2])) for other in kept]
        radii = [sorted((circle[2], other[2])) for other in kept]
        if all(
            distance > 0.5 * small or large > 2.5 * small
            for distance, (small, large) in zip(distances, radii, strict=True)
        ):
            kept.append(circle)
    return kept


def _is_known(person: tuple[np.ndarray, np.ndarray], taken: Bool[np.ndarray, "H W"]) -> bool:
    """Whether most of a find's visible joints lie on people who were found already."""
    xy, score = person[0][:_BODY], person[1][:_BODY]
    columns, rows = xy[score > 0].astype(int).T
    return bool(taken[rows, columns].mean() > 0.5)


def _silhouette(xy: Float[np.ndarray, "17 2"], size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """About the pixels of a person."""
    mask = np.zeros(size, np.uint8)
    points = np.clip(xy, -2 * max(size), 3 * max(size))
    diagonal = float(np.hypot(*np.ptp(points, axis=0)))
    thickness, radius = (max(2, round(share * diagonal)) for share in (_LIMB, _HEAD))
    shoulders, head = points[_TRUNK[:2]].mean(axis=0), points[:5].mean(axis=0)
    cv2.fillConvexPoly(mask, cv2.convexHull(points[_TRUNK].astype(np.int32)), 1)
    cv2.circle(mask, head.astype(int).tolist(), radius, 1, cv2.FILLED)
    ends = [(points[start], points[end]) for start, end in COCO17.limbs if max(start, end) < _BODY and min(start, end) > 4]
    outline = [(points[start], points[end]) for start, end in zip(_TRUNK, [*_TRUNK[1:], _TRUNK[0]], strict=True)]
    for start, end in [*ends, *outline, (shoulders, head)]:
        cv2.line(mask, start.astype(int).tolist(), end.astype(int).tolist(), 1, thickness)
    return mask.astype(bool)


def _paint_over(
    picture: UInt8[np.ndarray, "H W 3"], silhouette: Bool[np.ndarray, "H W"], taken: Bool[np.ndarray, "H W"]
) -> None:
    """Give a silhouette the median colour of what is around it, in place."""
    left, top, width, height = cv2.boundingRect(silhouette.astype(np.uint8))
    margin = 2 + round(0.1 * max(width, height))
    area = np.s_[max(0, top - margin) : top + height + margin, max(0, left - margin) : left + width + margin]
    surroundings = picture[area][~taken[area]]
    if len(surroundings):
        picture[silhouette] = np.median(surroundings, axis=0)


def _inside(xy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        inside: np.ndarray = ((xy >= 0) & (xy < np.array(size)[::-1])).all(axis=-1)
    return inside


def _to_people(found: list[tuple[np.ndarray, np.ndarray]], size: tuple[int, int], num_joints: int) -> People:
    if not found:
        shapes = ((0, num_joints, 2), (0, num_joints), (0, 5))
        return People(*(np.zeros(shape, np.float32) for shape in shapes))
    xy, score = (np.stack(part).astype(np.float32) for part in zip(*found, strict=True))
    box = np.stack([_box(*person, size) for person in found]).astype(np.float32)
    order = np.argsort(-box[:, 4], kind="stable")
    return People(xy[order], score[order], box[order])


def _box(xy: np.ndarray, score: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Around the joints inside the frame, with room for what sticks out beyond them; score: mean visibility."""
    seen = score[:_BODY] > 0
    points = xy[:_BODY][seen]
    room = 0.1 * float(np.ptp(points, axis=0).max())
    limits = np.array(size)[::-1]
    corners = [np.clip(points.min(axis=0) - room, 0, limits), np.clip(points.max(axis=0) + room, 0, limits)]
    return np.array([*corners[0], *corners[1], score[:_BODY][seen].mean()])
