"""`NetworkFeatures`: any video network as a `FeatureExtractor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from eval.distances.features import FeatureExtractor
from lisa_video.errors import UserError


class NetworkFeatures(FeatureExtractor):
    """What a network makes of whole clips.

    Args:
        embed: uint8 RGB (N, 3, F, H, W) on `device` -> (N, D); it resizes and scales as the network wants.
        name: of the network, for protocols.
        digest: `sha256:...` of its weights.
        dimension: D.
        protocol: what else changes the features, such as `resize` and `range`.
        device: where the network is.
        frames: fewest and most frames of a clip; None: no limit.
    """

    def __init__(
        self,
        embed: Callable[[Tensor], Tensor],
        *,
        name: str,
        digest: str,
        dimension: int,
        protocol: Mapping[str, Any],
        device: str | torch.device = "cpu",
        frames: tuple[int, int | None] = (1, None),
    ) -> None:
        self._embed, self._device, self._frames = embed, torch.device(device), frames
        self._name, self._digest, self._dimension, self._protocol = name, digest, dimension, dict(protocol)

    @property
    def name(self) -> str:
        """See `FeatureExtractor`."""
        return self._name

    @property
    def digest(self) -> str:
        """See `FeatureExtractor`."""
        return self._digest

    @property
    def dimension(self) -> int:
        """See `FeatureExtractor`."""
        return self._dimension

    @property
    def protocol(self) -> dict[str, Any]:
        """See `FeatureExtractor`."""
        return {"name": self.name, "digest": self.digest, "dimension": self.dimension, **self._protocol}

    def check_length(self, frames: int) -> None:
        """See `FeatureExtractor`."""
        fewest, most = self._frames
        if frames < fewest or (most is not None and frames > most):
            wanted = f"at least {fewest}" if most is None else f"{fewest} to {most}" if most > fewest else str(fewest)
            raise UserError(f"clips of {frames} frames, {self.name} takes {wanted}", remedy=f"--frames {fewest}")

    @torch.inference_mode()
    def features(self, videos: UInt8[np.ndarray, "N F H W 3"]) -> Float[np.ndarray, "N D"]:
        """See `FeatureExtractor`.

        Raises:
            UserError: the network does not take clips of so many frames.
        """
        self.check_length(videos.shape[1])
        clips = torch.from_numpy(videos).to(self._device, non_blocking=True).permute(0, 4, 1, 2, 3)
        # TF32 convolutions would move logits in the third digit, and the score with them.
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            found = self._embed(clips)
        if found.shape != (len(videos), self.dimension):
            raise UserError(
                f"{self.name} gave features of shape {tuple(found.shape)}, expected {(len(videos), self.dimension)}",
                remedy="use a network that gives one vector for each clip",
            )
        return found.double().cpu().numpy()
