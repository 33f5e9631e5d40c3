"""How steady generated frames are from one to the next: flicker, and the error after moving frames along the flow.

Both are about neighbouring frames and know no quality: a frozen or blurred clip scores better than the real one. They
are therefore always shown beside the real clip's own value.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from eval.frame_metrics.metric import Column, FrameMetric


class Flicker(FrameMetric):
    """Mean absolute difference of neighbouring frames, grey levels, beside that of the real clip."""

    columns = (
        Column("flicker", "Flicker", "neither", 2),
        Column("flicker_real", "of the real clip", "neither", 2),
        Column("flicker_ratio", "generated / real", "neither", 3),
    )

    @property
    def protocol(self) -> dict[str, Any]:
        """See `FrameMetric`."""
        return {"unit": "mean |difference| of neighbouring frames over RGB, of 255", "ratio": "per clip, then mean"}

    def measure(self, real: UInt8[np.ndarray, "F H W 3"], generated: UInt8[np.ndarray, "F H W 3"]) -> dict[str, float]:
        """See `FrameMetric`; NaN for a single frame, and for the ratio to a real clip that stands still."""
        own, true = _mean_change(generated), _mean_change(real)
        return {"flicker": own, "flicker_real": true, "flicker_ratio": own / true if true > 0 else np.nan}


class WarpingError(FrameMetric):
    """Mean square difference between a frame and the next one moved back along the real clip's optical flow.

        E = mean over neighbours t, t+1 of  Σ M |V_t(x) - V_{t+1}(x + u(x))|² / Σ M

    `V` generated frames in [0, 1], `u` flow of the REAL clip from t to t+1, `M` pixels that are not occluded: Lai et
    al., "Learning blind video temporal consistency", ECCV 2018, with the occlusion and motion boundary tests of Ruder
    et al., "Artistic style transfer for videos", 2016. Their flow is FlowNet2's, here it is OpenCV's DIS, so values
    are not comparable with theirs. It presumes that the generated clip moves like the real one (self-driven clips).
    """

    columns = (
        Column("warping_error", "Warping error, 1e-3", "lower", 3),
        Column("warping_error_real", "of the real clip", "neither", 3),
        Column("warped_share", "share of pixels used", "neither", 3),
    )
    min_side = 16

    def __init__(self) -> None:
        create: Any = cv2.DISOpticalFlow.create
        self._flow = create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    @property
    def protocol(self) -> dict[str, Any]:
        """See `FrameMetric`."""
        return {
            "flow": f"OpenCV {cv2.__version__} DIS, medium, of the real clip's grey frames, at their size",
            "masked": "occlusions and motion boundaries (Ruder et al. 2016), and what leaves the frame",
            "unit": "mean square of RGB in [0, 1], times 1000",
        }

    def measure(self, real: UInt8[np.ndarray, "F H W 3"], generated: UInt8[np.ndarray, "F H W 3"]) -> dict[str, float]:
        """See `FrameMetric`; pairs of frames without a single usable pixel are left out, NaN if none is left."""
        grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in real]
        errors, shares = [], []
        for frame in range(len(real) - 1):
            # cv2 hands out its own buffer for the flow.
            forward = self._flow.calc(grey[frame], grey[frame + 1], None).copy()
            backward = self._flow.calc(grey[frame + 1], grey[frame], None).copy()
            usable = _usable(forward, backward)
            shares.append(usable.mean())
            if usable.any():
                errors.append([
                    1e3 * np.mean((_unit(video[frame]) - _warp(_unit(video[frame + 1]), forward))[usable] ** 2)
                    for video in (generated, real)
                ])  # fmt: skip
        own, true = np.mean(errors, axis=0) if errors else (np.nan, np.nan)
        share = float(np.mean(shares)) if shares else np.nan
        return {"warping_error": float(own), "warping_error_real": float(true), "warped_share": share}


def _mean_change(frames: UInt8[np.ndarray, "F H W 3"]) -> float:
    changes = [np.abs(b.astype(np.int16) - a).mean() for a, b in pairwise(frames)]
    return float(np.mean(changes)) if changes else float("nan")


def _unit(frame: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
    return frame.astype(np.float32) / np.float32(255)


def _warp(picture: Float[np.ndarray, "H W C"], flow: Float[np.ndarray, "H W 2"]) -> Float[np.ndarray, "H W C"]:
    """`picture` read at x + flow(x), bilinear."""
    height, width = flow.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    warped: np.ndarray = cv2.remap(
        picture, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return warped


def _usable(forward: Float[np.ndarray, "H W 2"], backward: Float[np.ndarray, "H W 2"]) -> Bool[np.ndarray, "H W"]:
    """Pixels whose flow leads to a pixel that leads back, away from edges of the flow and within the frame."""
    height, width = forward.shape[:2]
    back = _warp(backward, forward)
    forward_square, back_square = (forward**2).sum(axis=-1), (back**2).sum(axis=-1)
    occluded = ((forward + back) ** 2).sum(axis=-1) > 0.01 * (forward_square + back_square) + 0.5
    slope = sum((np.gradient(forward[..., axis], axis=side) ** 2) for axis in (0, 1) for side in (0, 1))
    boundary = slope > 0.01 * forward_square + 0.002
    columns = np.arange(width)[None] + forward[..., 0]
    rows = np.arange(height)[:, None] + forward[..., 1]
    inside = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
    usable: np.ndarray = inside & ~occluded & ~boundary
    return usable
