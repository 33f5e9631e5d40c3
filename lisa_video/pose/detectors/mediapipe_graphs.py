"""The parts of MediaPipe that are used: networks that its wheel carries, run as they are, without any download.

MediaPipe comes with one pose model ("full", complexity 1); the others would be fetched, so they are never asked for.
Everything runs on the CPU.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from lisa_video.errors import UserError
from lisa_video.pose.skeleton import COCO17, COCO_WHOLEBODY133

BODY_MODELS = ("pose_detection/pose_detection.tflite", "pose_landmark/pose_landmark_full.tflite")
HAND_AND_FACE_MODELS = (
    "holistic_landmark/hand_recrop.tflite",
    "hand_landmark/hand_landmark_full.tflite",
    "face_detection/face_detection_short_range.tflite",
    "face_landmark/face_landmark.tflite",
)
_INSTALL = "pip install -e '.[mediapipe]' in the repository; it has wheels up to Python 3.12"
_SEARCH_GRAPH = """
input_stream: "IMAGE:image"
output_stream: "DETECTIONS:detections"
node {
  calculator: "PoseDetectionCpu"
  input_stream: "IMAGE:image"
  output_stream: "DETECTIONS:detections"
}
"""

# fmt: off
# Which of MediaPipe's 33 body landmarks is which joint of COCO.
_BODY = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
# Big toe and heel of COCO-WholeBody's feet; MediaPipe has no small toe.
_FEET = {17: 31, 19: 29, 20: 32, 22: 30}
# Which of its 468 face landmarks is nearest to which of iBUG's 68 points: jaw, brows, nose, eyes, mouth.
_FACE = np.array([
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389, 71, 63, 105, 66, 107,
    336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305, 33, 160, 158, 133, 153, 144, 362, 385, 387, 263,
    373, 380, 61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
])
# fmt: on
_HAND = np.arange(21)  # in the same order
_FACE_PLACE, _LEFT_HAND_PLACE, _RIGHT_HAND_PLACE = 23, 91, 112  # in COCO-WholeBody


@cache
def import_mediapipe() -> Any:
    """The package `mediapipe`.

    Raises:
        UserError: it is not installed, or is a build without models.
    """
    try:
        import mediapipe
        from mediapipe.python import solution_base  # noqa: F401
    except ImportError as error:
        raise UserError(f"MediaPipe cannot be used: {error}", remedy=_INSTALL) from error
    for name in BODY_MODELS:
        if not (_models_folder(mediapipe) / name).is_file():
            raise UserError(
                f"this build of MediaPipe ({mediapipe.__version__}) does not carry its model {Path(name).name}",
                remedy=_INSTALL,
            )
    # Some of its messages come once a process, with the first person: let it find one in noise.
    everything = {"min_detection_confidence": 0.0, "min_tracking_confidence": 0.0}
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with _quiet(), mediapipe.solutions.pose.Pose(static_image_mode=True, model_complexity=1, **everything) as pose:
        pose.process(noise)
    return mediapipe


@cache
def models_digest(names: tuple[str, ...]) -> str:
    """`sha256:...` of model files, one after the other; `names` are relative to MediaPipe's modules."""
    digest = hashlib.sha256()
    for name in names:
        digest.update((_models_folder(import_mediapipe()) / name).read_bytes())
    return f"sha256:{digest.hexdigest()}"


class BodySearch:
    """Looks for the most prominent person of a picture; it seldom sees a second one.

    Args:
        min_score: weaker finds are dropped, in [0, 1].

    Raises:
        UserError: see `import_mediapipe`.
    """

    def __init__(self, min_score: float) -> None:
        import_mediapipe()
        from google.protobuf import text_format
        from mediapipe.framework import calculator_pb2
        from mediapipe.python.solution_base import SolutionBase

        config = text_format.Parse(_SEARCH_GRAPH, calculator_pb2.CalculatorGraphConfig())
        threshold = {"posedetectioncpu__TensorsToDetectionsCalculator.min_score_thresh": min_score}
        with _quiet():
            self._graph = SolutionBase(graph_config=config, calculator_params=threshold, outputs=["detections"])
            self(np.zeros((8, 8, 3), np.uint8))
        weakref.finalize(self, self._graph.close)

    def __call__(self, picture: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "N 4"]:
        """RGB -> the circle around each person, in pixels, and its score in [0, 1]: x, y, radius, score."""
        height, width = picture.shape[:2]
        found = self._graph.process({"image": np.ascontiguousarray(picture)}).detections or []
        circles = np.empty((len(found), 4))
        for circle, detection in zip(circles, found, strict=True):
            # The model's own convention: the middle of the hips, and a point on the circle around the whole body.
            hips, rim = detection.location_data.relative_keypoints[:2]
            circle[:2] = hips.x * width, hips.y * height
            circle[2] = np.hypot((rim.x - hips.x) * width, (rim.y - hips.y) * height)
            circle[3] = detection.score[0]
        return circles


class BodyLandmarks:
    """Finds the joints of the most prominent person of a picture.

    Args:
        wholebody: feet, hands and face too, in the layout `coco_wholebody133`; otherwise `coco17`.

    Raises:
        UserError: see `import_mediapipe`.
    """

    def __init__(self, wholebody: bool = False) -> None:
        solutions = import_mediapipe().solutions
        self.skeleton = COCO_WHOLEBODY133 if wholebody else COCO17
        self._wholebody = wholebody
        kind = solutions.holistic.Holistic if wholebody else solutions.pose.Pose
        with _quiet():
            self._graph = kind(static_image_mode=True, model_complexity=1)
            self(np.zeros((8, 8, 3), np.uint8))
        weakref.finalize(self, self._graph.close)

    def __call__(
        self, picture: UInt8[np.ndarray, "H W 3"]
    ) -> tuple[Float[np.ndarray, "K 2"], Float[np.ndarray, " K"]] | None:
        """RGB -> joints in pixels, some maybe outside the picture, and scores; None: nobody was found.

        The score of a joint of body and feet is MediaPipe's `visibility`, the probability that the joint is inside
        the picture and not hidden. Hands and face come without scores; theirs is that of wrist and nose. Joints that
        were not found are NaN, with score 0.
        """
        found = self._graph.process(np.ascontiguousarray(picture))
        if found.pose_landmarks is None:
            return None
        joints = self.skeleton.num_joints
        xy, score = np.full((joints, 2), np.nan), np.zeros(joints)
        for joint, landmark in (*enumerate(_BODY), *(_FEET.items() if self._wholebody else ())):
            point = found.pose_landmarks.landmark[landmark]
            xy[joint], score[joint] = (point.x, point.y), min(max(point.visibility, 0.0), 1.0)
        if self._wholebody:
            for part, chosen, place, anchor in (
                (found.face_landmarks, _FACE, _FACE_PLACE, "nose"),
                (found.left_hand_landmarks, _HAND, _LEFT_HAND_PLACE, "left_wrist"),
                (found.right_hand_landmarks, _HAND, _RIGHT_HAND_PLACE, "right_wrist"),
            ):
                if part is not None:
                    points = np.array([(point.x, point.y) for point in part.landmark])
                    xy[place : place + len(chosen)] = points[chosen]
                    score[place : place + len(chosen)] = score[COCO17.joints.index(anchor)]
        return xy * picture.shape[1::-1], score


def _models_folder(mediapipe: Any) -> Path:
    return Path(mediapipe.__file__).parent / "modules"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the remarks of MediaPipe's C++ code off the screen; no setting of its own does.

    What other threads print to stderr meanwhile, some tenths of a second when a detector is made, is lost too.
    """
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
