"""Per-frame measurements of a clip's pictures: brightness, change, sharpness, borders, burned-in text.

They are taken while frames are decoded for pose detection, on pictures shrunk to `MAX_SIDE_PX`, and kept in a file
beside the keypoints, so that the rules (`data_tools/rules.py`) can be changed without decoding again.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_tools.burned_in import BurnedInText
from lisa_video.errors import UserError

MEASURES_VERSION = 1
"""Raise it whenever a change alters any number."""

MAX_SIDE_PX = 160
"""Frames are shrunk to this longer side before anything is measured, so that sizes do not matter, and cost is small."""

_BLUR_PX = 9  # width of the box filter of `_sharpness`, as in its source
_FLAT_STD = 3.0  # luma; a row of a bar is this even, which leaves room for compression noise
_BAR_STEP = 10.0  # luma; at the end of a bar the picture differs by this much
_STRAIGHT = 0.5  # share of the row at which a bar ends that has to differ: the edge of a bar is straight


@dataclass(frozen=True)
class FrameMeasures:
    """Measurements of F frames, float32 each; NaN where there is nothing to measure.

    Attributes:
        luma: (F,) mean brightness, 0 black to 255 white (BT.601, full range).
        luma_std: (F,) standard deviation of the brightness within the frame.
        change: (F,) mean absolute difference of brightness to the frame before, 0 to 255; NaN for the first frame.
        sharpness: (F,) 0 blurred to 1 sharp, see `_sharpness`; NaN for an even picture.
        bars: (F, 4) widths of even, straight borders at the top, bottom, left and right, shares of height and width.
        fixed_text: (F,) evidence of text or a logo that stays put while the picture moves, 0 to 1.
        sudden_text: (F,) evidence of text that comes or goes at this frame in a place that else is still, 0 to 1.
    """

    luma: Float[np.ndarray, " F"]
    luma_std: Float[np.ndarray, " F"]
    change: Float[np.ndarray, " F"]
    sharpness: Float[np.ndarray, " F"]
    bars: Float[np.ndarray, "F 4"]
    fixed_text: Float[np.ndarray, " F"]
    sudden_text: Float[np.ndarray, " F"]

    @property
    def num_frames(self) -> int:
        """F."""
        return len(self.luma)


class FrameMeasurer:
    """Measures a clip chunk by chunk; where the chunks begin makes no difference. Memory does not grow with the clip.

    Use: `update` with the frames in order, then `result` once.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[float, ...]] = []
        self._bars: list[np.ndarray] = []
        self._before: np.ndarray | None = None
        self._text = BurnedInText()

    def update(self, frames: UInt8[np.ndarray, "f H W 3"]) -> None:
        """Take the next frames, (f, H, W, 3) uint8 RGB; the size must stay the same over the clip."""
        for frame in frames:
            luma = small_luma(frame)
            change = np.nan if self._before is None else float(np.abs(luma - self._before).mean())
            self._rows.append((float(luma.mean()), float(luma.std()), change, _sharpness(luma)))
            self._bars.append(_bars(luma))
            self._text.update(luma)
            self._before = luma

    def result(self) -> FrameMeasures:
        """The measurements of all frames taken."""
        if not self._rows:
            raise ValueError("no frame was given to the measurer")
        luma, luma_std, change, sharpness = np.array(self._rows, np.float32).T.copy()
        fixed, sudden = self._text.result()
        return FrameMeasures(luma, luma_std, change, sharpness, np.array(self._bars, np.float32), fixed, sudden)


def small_luma(frame: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "h w"]:
    """Brightness of a frame in [0, 255], its longer side shrunk to `MAX_SIDE_PX`; smaller frames stay as they are."""
    scale = MAX_SIDE_PX / max(frame.shape[:2])
    if scale < 1:
        size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _sharpness(luma: np.ndarray) -> float:
    """1 - the blur effect of Crete et al. 2007: how much of the differences of neighbours a box blur takes away.

    It does not depend on contrast. At `MAX_SIDE_PX` only gross blur shows: sharp footage has 0.63 to 0.83, the same
    footage blurred by 1.6 % of its height (standard deviation) 0.27 to 0.59.
    """
    sharpest = np.inf
    for axis, size in enumerate(((1, _BLUR_PX), (_BLUR_PX, 1))):
        before = np.abs(np.diff(luma, axis=axis))
        lost = np.maximum(0, before - np.abs(np.diff(cv2.blur(luma, size), axis=axis)))
        total = float(before.sum())
        if total < before.size * 0.1:  # a tenth of a gray level a pixel: noise at most
            return float("nan")
        sharpest = min(sharpest, float(lost.sum()) / total)
    return sharpest


def _bars(luma: np.ndarray) -> np.ndarray:
    """Shares of height or width taken by even bars with a straight end: top, bottom, left, right."""
    sides = (luma, luma[::-1], luma.T, luma.T[::-1])
    return np.array([_bar(side) / len(side) for side in sides], np.float32)


def _bar(luma: np.ndarray) -> int:
    """Rows of the bar at the top.

    A plain wall or floor is even too; so the end of a bar must be a straight line, where most of the row differs.
    """
    level = float(np.median(luma[0]))
    even = (luma.std(axis=1) < _FLAT_STD) & (np.abs(luma.mean(axis=1) - level) < _FLAT_STD)
    rows = len(luma) if even.all() else int(np.argmin(even))
    if rows == 0 or rows >= len(luma) // 2:  # an even frame has no borders
        return 0
    # Shrinking mixes bar and picture in one row, so the row after it is looked at too.
    differs = (np.abs(luma[rows : rows + 2] - level) > _BAR_STEP).mean(axis=1).max()
    return rows if differs > _STRAIGHT else 0


def save_measures(path: str | Path, measures: FrameMeasures) -> None:
    """Write a measures file (`.npz`), under a temporary name first; equal measures give equal bytes."""
    path = Path(path)
    draft = path.with_name(path.name + ".tmp")
    with open(draft, "wb") as file:
        arrays = {field.name: getattr(measures, field.name).astype(np.float32) for field in fields(measures)}
        np.savez_compressed(file, version=np.int64(MEASURES_VERSION), **arrays)
    draft.replace(path)


def load_measures(path: str | Path) -> FrameMeasures:
    """Read a measures file.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    remedy = "run the step `poses` again"
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
            version = int(file["version"])
            if version != MEASURES_VERSION:
                raise UserError(
                    f"measures of version {version}, this release reads {MEASURES_VERSION}", where=path, remedy=remedy
                )
            return FrameMeasures(**{field.name: file[field.name] for field in fields(FrameMeasures)})
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"cannot read measures ({error})", where=path, remedy=remedy) from error
