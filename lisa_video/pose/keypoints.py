"""`Keypoints`: the poses of one video or clip, and their lossless file (`.npz`, version 1)."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lisa_video.errors import UserError
from lisa_video.pose.skeleton import skeleton_by_name

KEYPOINTS_VERSION = 1
_REMEDY = "extract the poses of this clip again"


@dataclass(frozen=True)
class Keypoints:
    """Poses of P people over F frames in a layout of K joints.

    Coordinates are pixels of the frames that they belong to, x right and y down, with (0, 0) at the outer corner
    of the top left pixel: resizing a picture by s multiplies them by s, and mirroring maps x to width - x.

    Attributes:
        xy: (F, P, K, 2) float32, pixels; NaN where the joint is unknown (its score is then 0).
        score: (F, P, K) float32 in [0, 1], the detector's confidence (see `skeleton.VISIBLE_SCORE`).
        track_id: (P,) int64, identity of each person over the clip.
        skeleton: name of the layout, for example "coco17".
    """

    xy: np.ndarray
    score: np.ndarray
    track_id: np.ndarray
    skeleton: str = "coco17"

    def __post_init__(self) -> None:
        joints = skeleton_by_name(self.skeleton).num_joints
        frames, people = self.score.shape[:2]
        if self.score.shape != (frames, people, joints) or self.xy.shape != (frames, people, joints, 2):
            raise ValueError(
                f"xy {self.xy.shape} and score {self.score.shape} must be (F, P, {joints}, 2) and (F, P, {joints})"
            )
        if self.track_id.shape != (people,):
            raise ValueError(f"track_id {self.track_id.shape} must be ({people},)")

    @property
    def num_frames(self) -> int:
        """F."""
        return int(self.score.shape[0])

    def frames(self, index: np.ndarray | slice) -> Keypoints:
        """The same people at the chosen frames only."""
        return Keypoints(self.xy[index], self.score[index], self.track_id, self.skeleton)


def save_keypoints(path: str | Path, keypoints: Keypoints) -> None:
    """Write a keypoint file (`.npz` by custom), under a temporary name first; equal keypoints give equal bytes."""
    path = Path(path)
    draft = path.with_name(path.name + ".tmp")
    with open(draft, "wb") as file:
        np.savez_compressed(
            file,
            version=np.int64(KEYPOINTS_VERSION),
            skeleton=np.str_(keypoints.skeleton),
            xy=keypoints.xy.astype(np.float32),
            score=keypoints.score.astype(np.float32),
            track_id=keypoints.track_id.astype(np.int64),
        )
    draft.replace(path)


def load_keypoints(path: str | Path) -> Keypoints:
    """Read a keypoint file.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read keypoints ({error})", where=path, remedy=_REMEDY) from error
    return parse_keypoints(content, path)


def parse_keypoints(content: bytes, where: str | Path) -> Keypoints:
    """Read the bytes of a keypoint file; `where` names them in errors.

    Raises:
        UserError: they are damaged, or of another version.
    """
    try:
        # Opened as an archive first: np.load would take a lone array (.npy) for a keypoint file too.
        with zipfile.ZipFile(io.BytesIO(content)), np.load(io.BytesIO(content), allow_pickle=False) as file:
            version = int(file["version"])
            if version != KEYPOINTS_VERSION:
                raise UserError(
                    f"keypoint file has version {version}, this release reads {KEYPOINTS_VERSION}",
                    where=where,
                    remedy=_REMEDY,
                )
            return Keypoints(file["xy"], file["score"], file["track_id"], str(file["skeleton"]))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"cannot read keypoints ({error})", where=where, remedy=_REMEDY) from error
