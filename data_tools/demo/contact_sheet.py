"""Contact sheets: a picture of some clips, plain and with their keypoints drawn over them."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np

from data_tools.demo.render import IN_SIGHT, OUTSIDE
from lisa_video.data.manifest import ClipRecord, Manifest, Split
from lisa_video.pose.keypoints import Keypoints, load_keypoints
from lisa_video.pose.skeleton import skeleton_by_name

_CELL = 128  # pixels of a frame on the sheet, at least


def contact_sheet(
    manifest: str | Path, out_png: str | Path, rows: int = 6, split: Split = "train", columns: int = 8
) -> None:
    """Draw frames of the first clips of a split.

    Each clip takes two lines: its frames, and the same frames with limbs and joints over them. Joints in sight are
    discs, hidden ones are rings, and joints outside the frame are left out.

    Args:
        manifest: manifest of the data set.
        out_png: picture to write; a name ending in .jpg gives a smaller file.
        rows: number of clips.
        split: "train" or "val".
        columns: frames per clip, spread over its length.

    Raises:
        UserError: the manifest or a keypoint file cannot be read, or the split has no clip.
    """
    data = Manifest(manifest, split)
    lines = []
    for number in range(min(rows, len(data))):
        lines += _clip_lines(data, data[number], columns)
    cv2.imwrite(str(out_png), np.concatenate(lines)[..., ::-1])


def _clip_lines(data: Manifest, record: ClipRecord, columns: int) -> list[np.ndarray]:
    """Two (H, columns * W, 3) uint8 RGB strips of one clip."""
    chosen = np.linspace(0, record.num_frames - 1, min(columns, record.num_frames)).round().astype(int)
    with av.open(str(data.resolve(record.video))) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = np.stack(decoded)[record.in_video(chosen)]
    keypoints = load_keypoints(data.resolve(record.keypoints)).frames(chosen)
    scale = max(1, -(-_CELL // record.height))
    large = [cv2.resize(f, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST) for f in frames]
    drawn = [_with_skeleton(picture.copy(), keypoints, index, scale) for index, picture in enumerate(large)]
    cv2.putText(large[0], record.source, (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255))
    return [np.concatenate(large, axis=1), np.concatenate(drawn, axis=1)]


def _with_skeleton(picture: np.ndarray, keypoints: Keypoints, frame: int, scale: int) -> np.ndarray:
    """Draw the people of one frame into its enlarged picture."""
    skeleton = skeleton_by_name(keypoints.skeleton)
    left, right = skeleton.joints.index("left_shoulder"), skeleton.joints.index("right_shoulder")
    for xy, score in zip(keypoints.xy[frame] * scale, keypoints.score[frame], strict=True):
        neck, neck_score = (xy[left] + xy[right]) / 2, min(score[left], score[right])
        points = [(int(x), int(y)) for x, y in [*xy, neck]]
        scores = [*score, neck_score]
        for (start, end), color in zip(skeleton.limbs, skeleton.limb_colors, strict=True):
            if min(scores[start], scores[end]) > OUTSIDE:
                cv2.line(picture, points[start], points[end], color, 1, cv2.LINE_AA)
        for point, value in zip(points, score, strict=False):
            if value > OUTSIDE:
                cv2.circle(picture, point, 2, (255, 255, 255), -1 if value == IN_SIGHT else 1, cv2.LINE_AA)
    return picture
