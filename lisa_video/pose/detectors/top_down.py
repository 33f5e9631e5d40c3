"""Top-down detection: people first, then the joints of each in a picture of their own. As mmpose does it, in batches.

The picture of a person is cut out as mmpose's GetBBoxCenterScale and TopdownAffine do: the box, widened, extended to
the network's aspect ratio and resampled to its size. Crops of all frames and people then go through the network
together, `batch_size` at a time.

Places: to mmpose 0 is the centre of the first pixel, to `Keypoints` it is that pixel's outer corner, so 0.5 is added
to each joint, here and nowhere else. Boxes are handed to the crop as they are: mmpose, too, takes the numbers of a
COCO box, which starts at the pixels' corners, for centres. That moves the crop by half a pixel, not the joints in it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from lisa_video.errors import UserError
from lisa_video.pose.detector import People, PoseDetector
from lisa_video.pose.detectors.boxes import PersonDetector
from lisa_video.pose.detectors.weights import join_digests
from lisa_video.pose.skeleton import skeleton_by_name

_SKELETONS = {17: "coco17", 133: "coco_wholebody133"}
_CORNER_TO_CENTRE = 0.5
_CROP_THREADS = 8


@dataclass(frozen=True)
class CropGeometry:
    """How a person's box becomes the network's picture.

    Attributes:
        width: of the picture, pixels.
        height: of the picture, pixels.
        padding: factor by which the box is widened first.
        udp: corners are matched by pixel centres ("unbiased data processing", Huang et al. 2020), not by their edges.
    """

    width: int
    height: int
    padding: float = 1.25
    udp: bool = False

    def windows(self, boxes: Float[np.ndarray, "N 4"]) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, "N 2"]]:
        """Boxes (left, top, right, bottom) -> centre and size (width, height) of what is cut out, pixels."""
        centre = (boxes[:, :2] + boxes[:, 2:]) * 0.5
        # A box without area would have no inverse.
        size = np.maximum((boxes[:, 2:] - boxes[:, :2]) * self.padding, 1.0)
        aspect = self.width / self.height
        width = np.maximum(size[:, 0], size[:, 1] * aspect)
        return centre, np.stack([width, width / aspect], axis=1)

    def crop(
        self,
        frame: UInt8[np.ndarray, "H W 3"],
        centre: Float[np.ndarray, " 2"],
        size: Float[np.ndarray, " 2"],
        into: UInt8[np.ndarray, "h w 3"] | None = None,
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Cut one window out; what lies outside the frame is black. The result is written to `into`, if given."""
        target = np.array([self.width, self.height], np.float64)
        scale = (target - 1 if self.udp else target) / size
        # Frame to crop, both counted in pixel centres: the window's edge, or its outermost centre, goes to 0.
        shift = -scale * (centre - size * 0.5)
        matrix = np.array([[scale[0], 0.0, shift[0]], [0.0, scale[1], shift[1]]])
        picture: np.ndarray = cv2.warpAffine(frame, matrix, (self.width, self.height), into, flags=cv2.INTER_LINEAR)
        return picture

    def to_frame(
        self, xy: Float[np.ndarray, "N K 2"], centre: Float[np.ndarray, "N 2"], size: Float[np.ndarray, "N 2"]
    ) -> Float[np.ndarray, "N K 2"]:
        """Joints in the crop, as mmpose's decoders give them -> pixels of the frame, 0 at the outer corner."""
        share = xy / np.array([self.width, self.height])
        placed: np.ndarray = share * size[:, None] + (centre - size * 0.5)[:, None] + _CORNER_TO_CENTRE
        return placed


class TopDownDetector(PoseDetector):
    """Finds people with one detector, and their joints with a network that sees one person at a time.

    Args:
        geometry: of the network's pictures.
        skeleton: name of the layout that the network answers in.
        person: finds the people.
        name: of the network, for protocols.
        digest: of its weights.
        batch_size: crops that go through the network at once.
    """

    def __init__(
        self, geometry: CropGeometry, skeleton: str, person: PersonDetector, *, name: str, digest: str, batch_size: int
    ) -> None:
        self.geometry, self.person = geometry, person
        self._skeleton, self._name, self._batch_size = skeleton, name, batch_size
        self._digest = join_digests(digest, person.digest)

    @property
    def name(self) -> str:
        """See `PoseDetector`."""
        return f"{self._name}, people by {self.person.name}"

    @property
    def digest(self) -> str:
        """See `PoseDetector`; of both networks, if people are found by one."""
        return self._digest

    @property
    def skeleton(self) -> str:
        """See `PoseDetector`."""
        return self._skeleton

    @abstractmethod
    def joints(
        self, crops: UInt8[np.ndarray, "N h w 3"]
    ) -> tuple[Float[np.ndarray, "N K 2"], Float[np.ndarray, "N K"]]:
        """RGB pictures of one person each -> joints as mmpose's decoders place them in the crop, and scores.

        The memory of `crops` is used again after the call.
        """

    def find(self, frames: UInt8[np.ndarray, "F H W 3"]) -> list[People]:
        """See `PoseDetector`."""
        # More than are kept of the clip in the end: of people of much the same size, the largest change by the frame.
        boxes = [_largest(found, 2 * self.max_people) for found in self.person.boxes(frames)]
        counts = [len(found) for found in boxes]
        owner = np.repeat(np.arange(len(frames)), counts)
        people = np.concatenate(boxes) if boxes else np.zeros((0, 5), np.float32)
        xy, score = self._joints_of(frames, owner, people[:, :4].astype(np.float64))
        spans = [slice(end - count, end) for count, end in zip(counts, np.cumsum(counts), strict=True)]
        return [People(xy[span], score[span], people[span]) for span in spans]

    def _joints_of(self, frames: np.ndarray, owner: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joints (N, K, 2) and scores (N, K) of N boxes, of which number i lies in frame `owner[i]`."""
        joints = skeleton_by_name(self._skeleton).num_joints
        xy = np.empty((len(boxes), joints, 2), np.float32)
        score = np.empty((len(boxes), joints), np.float32)
        centre, size = self.geometry.windows(boxes)
        crops = np.empty((min(self._batch_size, len(boxes)), self.geometry.height, self.geometry.width, 3), np.uint8)

        def cut(number: int, into: np.ndarray) -> None:
            self.geometry.crop(frames[owner[number]], centre[number], size[number], into)

        # OpenCV lets other threads run meanwhile. As many as torch was allowed, so that workers share a machine well.
        with ThreadPoolExecutor(min(_CROP_THREADS, torch.get_num_threads())) as threads:
            for start in range(0, len(boxes), self._batch_size):
                part = slice(start, min(start + self._batch_size, len(boxes)))
                batch = crops[: part.stop - start]
                list(threads.map(cut, range(start, part.stop), batch))
                found, confidence = self.joints(batch)
                xy[part] = self.geometry.to_frame(found, centre[part], size[part])
                score[part] = np.clip(confidence, 0.0, 1.0)
        return xy, score


def skeleton_of(num_joints: int, names: Sequence[str] | None, where: str | Path) -> str:
    """Name of the layout of a network's joints.

    Args:
        num_joints: K, how many the network finds.
        names: what they are called, if the network says so; COCO's 17 must come first.
        where: the network's file, for the message.

    Raises:
        UserError: another layout.
    """
    skeleton = _SKELETONS.get(num_joints)
    body = skeleton_by_name("coco17").joints
    if skeleton is None or (names is not None and tuple(names[: len(body)]) != body):
        seen = "" if names is None else f" ({', '.join(names[:3])}, ...)"
        raise UserError(
            f"the model finds {num_joints} joints{seen} in a layout that is not known here",
            where=where,
            remedy="use a model of COCO's 17 joints or of COCO-WholeBody's 133",
        )
    return skeleton


def _largest(boxes: Float[np.ndarray, "P 5"], at_most: int) -> Float[np.ndarray, "p 5"]:
    """The boxes of largest area, in the order in which they came."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return boxes[np.sort(np.argsort(-area, kind="stable")[:at_most])]
