"""How near generated frames are to the true ones, pixel by pixel: PSNR, SSIM and MS-SSIM.

SSIM: Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004; MS-SSIM: Wang et
al., "Multiscale structural similarity for image quality assessment", 2003; both as torchmetrics computes them.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from eval.frame_metrics.metric import CHUNK, Column, FrameMetric, unit_tensor
from lisa_video.errors import UserError

MAX_PSNR_DB = 100.0
"""What an identical frame counts, so that means stay finite."""
_INSTALL = "pip install 'lisa-video[metrics]'"


class PSNR(FrameMetric):
    """Peak signal-to-noise ratio, 10 log10(255² / mean square error) of each frame, at most `MAX_PSNR_DB`."""

    columns = (Column("psnr_db", "PSNR, dB", "higher", 2),)

    @property
    def protocol(self) -> dict[str, Any]:
        """See `FrameMetric`."""
        return {"average": "per frame, over RGB together; then over frames", "most": f"{MAX_PSNR_DB:g} dB"}

    def measure(self, real: UInt8[np.ndarray, "F H W 3"], generated: UInt8[np.ndarray, "F H W 3"]) -> dict[str, float]:
        """See `FrameMetric`."""
        errors = np.array([
            np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2) for a, b in zip(real, generated, strict=True)
        ])  # fmt: skip
        least = 255.0**2 / 10 ** (MAX_PSNR_DB / 10)
        return {"psnr_db": float(np.mean(10 * np.log10(255.0**2 / np.maximum(errors, least))))}


class _Similarity(FrameMetric):
    """A similarity of torchmetrics, averaged over frames."""

    window = "Gaussian 11 x 11, sigma 1.5, whole windows only"

    def __init__(self) -> None:
        try:
            import torchmetrics
        except ImportError as error:
            raise UserError("torchmetrics is not installed", remedy=_INSTALL) from error
        self._version = torchmetrics.__version__

    @property
    def protocol(self) -> dict[str, Any]:
        """See `FrameMetric`."""
        return {
            "library": f"torchmetrics {self._version}", "range": "[0, 1]", "window": self.window,
            "average": "over RGB, windows and frames",
        }  # fmt: skip

    def measure(self, real: UInt8[np.ndarray, "F H W 3"], generated: UInt8[np.ndarray, "F H W 3"]) -> dict[str, float]:
        """See `FrameMetric`."""
        values = [
            self._values(unit_tensor(generated[start : start + CHUNK]), unit_tensor(real[start : start + CHUNK]))
            for start in range(0, len(real), CHUNK)
        ]
        return {self.columns[0].key: float(np.concatenate([value.numpy() for value in values]).mean())}

    @abstractmethod
    def _values(self, generated: Float[Tensor, "F 3 H W"], real: Float[Tensor, "F 3 H W"]) -> Float[Tensor, " F"]:
        """One number a frame."""


class SSIM(_Similarity):
    """Structural similarity in [-1, 1]; 1 for equal frames."""

    columns = (Column("ssim", "SSIM", "higher", 4),)
    min_side = 11

    def _values(self, generated: Float[Tensor, "F 3 H W"], real: Float[Tensor, "F 3 H W"]) -> Float[Tensor, " F"]:
        from torchmetrics.functional.image import structural_similarity_index_measure as ssim

        # torchmetrics reflects the frame at its edges; the definition has whole windows only, five pixels away.
        _, full = ssim(generated, real, data_range=1.0, reduction="none", return_full_image=True)
        values: Tensor = full[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
        return values


class MultiScaleSSIM(_Similarity):
    """The same at five scales, which needs frames of 176 pixels on each side."""

    columns = (Column("ms_ssim", "MS-SSIM", "higher", 4),)
    window = "Gaussian 11 x 11, sigma 1.5, five scales, frames reflected at their edges"
    min_side = 176  # of torchmetrics

    def _values(self, generated: Float[Tensor, "F 3 H W"], real: Float[Tensor, "F 3 H W"]) -> Float[Tensor, " F"]:
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim

        values: Tensor = ms_ssim(generated, real, data_range=1.0, reduction="none", normalize="relu")
        return values.reshape(-1)
