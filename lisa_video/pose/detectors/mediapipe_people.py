"""All the people of a frame, with MediaPipe's networks, which see one person at a time.

Three steps, repeated: square windows over the frame are searched; each find is looked at closely, in a picture of its
own, which gives the joints; and people who were found are painted over, so that the next search sees the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from lisa_video.pose.detector import People
from lisa_video.pose.detectors.mediapipe_graphs import BodyLandmarks, BodySearch
from lisa_video.pose.skeleton import COCO17, Skeleton

_FILLED = 0.3
"""Share of a window's side that a person must fill to be found reliably."""
_OVERLAP = 0.5
"""Of neighbouring windows, share of their side."""
_ROUNDS = 3
"""Searches of a window at most: in 48 composed pictures of up to four people a fourth found nobody new."""
_CLOSE_UP = 1.25
"""Half the side of the picture of one person, over the radius of the circle around the body; MediaPipe's own."""
_CLOSE_UP_PX = 256
"""Smallest side of that picture; smaller ones are enlarged."""
_MIN_VISIBILITY = 0.65
"""Mean visibility of the joints inside the frame below which a find is no person. Of rendered people 1 in 50 lies below
0.68; of bare arms that are taken for bodies, most."""

# How thick a person is painted, over the diagonal of the box of the joints.
_LIMB, _HEAD = 0.1, 0.1
_ROOM = 0.1
"""Between joints and box, over the longer side of the box of the joints."""
_TRUNK = [COCO17.joints.index(name) for name in ("left_shoulder", "right_shoulder", "right_hip", "left_hip")]
_LIMBS = [(start, end) for start, end in COCO17.limbs if min(_TRUNK) <= start < COCO17.num_joints]
_BODY = slice(COCO17.num_joints)


@dataclass(frozen=True)
class Person:
    """A person as found.

    Attributes:
        xy: joints, pixels of the frame; NaN where unknown.
        score: in [0, 1]; 0 outside the frame.
        inside: which joints of the body are inside the frame.
    """

    xy: Float[np.ndarray, "K 2"]
    score: Float[np.ndarray, " K"]
    inside: Bool[np.ndarray, 17]

    @property
    def visibility(self) -> float:
        """Mean score of the body's joints inside the frame; 0 if none is."""
        return float(self.score[_BODY][self.inside].mean()) if self.inside.any() else 0.0

    def box(self, size: tuple[int, ...]) -> Float[np.ndarray, " 5"]:
        """Around the joints inside the frame, with room for what of a person lies beyond the joints; and a score."""
        points = self.xy[_BODY][self.inside]
        room = _ROOM * float(np.ptp(points, axis=0).max())
        lowest, highest = points.min(axis=0) - room, points.max(axis=0) + room
        return np.array([*np.maximum(lowest, 0), *np.minimum(highest, size[::-1]), self.visibility])

    def lies_on(self, taken: Bool[np.ndarray, "H W"]) -> bool:
        """Whether most of the joints are on pixels of people who were found already."""
        columns, rows = self.xy[_BODY][self.inside].astype(int).T
        return bool(taken[rows, columns].mean() > 0.5)

    def silhouette(self, size: tuple[int, ...]) -> Bool[np.ndarray, "H W"]:
        """About the pixels of the person."""
        mask = np.zeros(size, np.uint8)
        points = np.clip(self.xy[_BODY], -2 * max(size), 3 * max(size))
        diagonal = float(np.hypot(*np.ptp(points, axis=0)))
        thickness, radius = max(2, round(_LIMB * diagonal)), max(2, round(_HEAD * diagonal))
        trunk, shoulders, head = points[_TRUNK], points[_TRUNK[:2]].mean(axis=0), points[: _TRUNK[0]].mean(axis=0)
        lines = [(points[start], points[end]) for start, end in _LIMBS]
        lines += [*zip(trunk, np.roll(trunk, 1, axis=0), strict=True), (shoulders, head)]
        for start, end in lines:
            cv2.line(mask, start.astype(int).tolist(), end.astype(int).tolist(), 1, thickness)
        cv2.fillConvexPoly(mask, cv2.convexHull(trunk.astype(np.int32)), 1)
        cv2.circle(mask, head.astype(int).tolist(), radius, 1, cv2.FILLED)
        return mask.astype(bool)


class PeopleSearch:
    """Finds people with their joints.

    Args:
        min_score: of the search, in [0, 1]; weaker finds are not looked at.
        smallest: height of the smallest people that are looked for, over the frame's shorter side; smaller ones are
            found by chance. Half the value takes about four times as long.
        wholebody: joints in `coco_wholebody133`, otherwise in `coco17`.

    Raises:
        UserError: MediaPipe cannot be used.
    """

    def __init__(self, *, min_score: float = 0.5, smallest: float = 0.3, wholebody: bool = False) -> None:
        self._search, self._landmarks = BodySearch(min_score), BodyLandmarks(wholebody)
        self._largest_window = min(1.0, smallest / _FILLED)

    @property
    def skeleton(self) -> Skeleton:
        """Layout of the joints."""
        return self._landmarks.skeleton

    def people(self, frame: UInt8[np.ndarray, "H W 3"]) -> People:
        """Everybody in a frame, best first."""
        found: list[Person] = []
        taken = np.zeros(frame.shape[:2], bool)  # pixels of people who were found
        picture, windows = frame.copy(), _windows(frame.shape[:2], self._largest_window)
        for _ in range(_ROUNDS):
            circles = [self._searched(picture, window) for window in windows]
            windows = [window for window, some in zip(windows, circles, strict=True) if len(some)]
            silhouettes = []
            for circle in _distinct(np.concatenate(circles)) if windows else ():
                person = self._look_closely(picture, circle)
                if person is not None and not person.lies_on(taken):
                    found.append(person)
                    silhouettes.append(person.silhouette(taken.shape))
                    taken |= silhouettes[-1]
            for silhouette in silhouettes:
                _paint_over(picture, silhouette, taken)
            if not silhouettes:
                break
        found.sort(key=lambda person: -person.visibility)
        return self._joined(found, [person.box(taken.shape) for person in found])

    def people_within(self, frame: UInt8[np.ndarray, "H W 3"], boxes: Float[np.ndarray, "P 5"]) -> People:
        """The people of a frame whose boxes are known already; boxes in which nobody is seen are left out."""
        middles, radii = (boxes[:, :2] + boxes[:, 2:4]) / 2, (boxes[:, 2:4] - boxes[:, :2]).max(axis=1) / 2
        looks = [self._look_closely(frame, circle) for circle in np.column_stack([middles, radii])]
        seen = [(person, box) for person, box in zip(looks, boxes, strict=True) if person is not None]
        return self._joined([person for person, _ in seen], [box for _, box in seen])

    def _searched(self, picture: np.ndarray, window: tuple[int, int, int, int]) -> Float[np.ndarray, "N 4"]:
        left, top, right, bottom = window
        found: np.ndarray = self._search(picture[top:bottom, left:right]) + np.array([left, top, 0, 0])
        return found

    def _look_closely(self, frame: np.ndarray, circle: np.ndarray) -> Person | None:
        """The person within a circle (x, y, radius) in pixels of the frame; None: nobody."""
        half = max(float(circle[2]) * _CLOSE_UP, 1.0)
        corner = circle[:2] - half
        scale = max(1.0, _CLOSE_UP_PX / (2 * half))
        side = round(2 * half * scale)
        # cv2 counts from pixel centres, circles from the outer corner.
        shift = scale * (0.5 - corner) - 0.5
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float64)
        found = self._landmarks(cv2.warpAffine(frame, matrix, (side, side), flags=cv2.INTER_LINEAR))
        if found is None:
            return None
        xy = found[0] / scale + corner
        with np.errstate(invalid="ignore"):
            inside: np.ndarray = np.all((xy >= 0) & (xy < frame.shape[1::-1]), axis=1)
        person = Person(xy, np.where(inside, found[1], 0.0), inside[_BODY])
        return person if person.visibility >= _MIN_VISIBILITY else None

    def _joined(self, found: list[Person], boxes: list[np.ndarray]) -> People:
        joints = self.skeleton.num_joints
        xy = np.array([person.xy for person in found], np.float32).reshape(-1, joints, 2)
        score = np.array([person.score for person in found], np.float32).reshape(-1, joints)
        return People(xy, score, np.array(boxes, np.float32).reshape(-1, 5))


def _windows(size: tuple[int, ...], smallest: float) -> list[tuple[int, int, int, int]]:
    """Left, top, right, bottom in pixels: the frame, then squares of its shorter side, half of that, ...

    Args:
        size: (H, W) of the frame.
        smallest: side of the smallest squares over the frame's shorter side, up to 1.
    """
    height, width = size
    windows = [(0, 0, width, height)]
    levels = max(0, int(np.ceil(-np.log2(smallest) - 0.01)))
    for level in range(levels + 1):
        side = max(1, round(min(size) * max(0.5**level, smallest)))
        tops, lefts = (_starts(length, side) for length in size)
        windows += [(left, top, left + side, top + side) for top in tops for left in lefts]
    return list(dict.fromkeys(windows))


def _starts(length: int, side: int) -> list[int]:
    """Where windows begin that cover a length and overlap."""
    count = 1 + int(np.ceil((length - side) / (side * (1 - _OVERLAP)) - 1e-9))
    starts: list[int] = np.linspace(0, length - side, count).round().astype(int).tolist()
    return starts


def _distinct(circles: Float[np.ndarray, "N 4"]) -> list[np.ndarray]:
    """Best first, without those that are another one again."""
    kept: list[np.ndarray] = []
    for circle in circles[np.argsort(-circles[:, 3], kind="stable")]:
        if not any(_is_same(circle, other) for other in kept):
            kept.append(circle)
    return kept


def _is_same(first: np.ndarray, second: np.ndarray) -> bool:
    small, large = sorted((float(first[2]), float(second[2])))
    return float(np.hypot(*(first[:2] - second[:2]))) <= 0.5 * small and large <= 2.5 * small


def _paint_over(
    picture: UInt8[np.ndarray, "H W 3"], silhouette: Bool[np.ndarray, "H W"], taken: Bool[np.ndarray, "H W"]
) -> None:
    """Give a silhouette the median colour of what is around it, in place."""
    left, top, width, height = cv2.boundingRect(silhouette.astype(np.uint8))
    margin = 2 + round(0.1 * max(width, height))
    area = np.s_[max(0, top - margin) : top + height + margin, max(0, left - margin) : left + width + margin]
    around = picture[area][~taken[area]]
    if len(around):
        picture[silhouette] = np.median(around, axis=0)
