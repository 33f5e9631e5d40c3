"""FID: Fréchet distance between real and generated frames, each frame a picture for itself.

Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", 2017. Numbers are
comparable with others' only for the Inception network of that paper; as TorchScript it is in common use as
`inception-2015-12-05.pt` (StyleGAN2-ADA and later), which resizes and normalises inside. The user names the file.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from eval.distances.frechet import FeatureStatistics, frechet_distance
from lisa_video.errors import UserError

_BATCH = 32
_REMEDY = "name a TorchScript file that maps uint8 (N, 3, H, W) to (N, D), such as inception-2015-12-05.pt"


class FrameFrechet:
    """Statistics of the frames of all clips; memory does not grow with them.

    Args:
        network_file: see the module.
        device: where to compute.

    Raises:
        UserError: no such file, or not TorchScript.
    """

    def __init__(self, network_file: str | Path, device: str | torch.device = "cpu") -> None:
        try:
            self._digest = hashlib.sha256(Path(network_file).read_bytes()).hexdigest()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch.jit is deprecated, but the file is what it is
                load: Any = torch.jit.load
                self._network = load(str(network_file), map_location=device).eval()
        except (OSError, RuntimeError, ValueError) as error:
            first = str(error).partition("\n")[0]
            raise UserError(f"cannot load the network ({first})", where=network_file, remedy=_REMEDY) from error
        self._file, self._device = network_file, device
        self._generated: FeatureStatistics | None = None
        self._halves: list[FeatureStatistics] = []
        self._clips = 0

    @property
    def protocol(self) -> dict[str, Any]:
        """Everything that changes the number, as JSON values."""
        return {
            "network": f"TorchScript {Path(self._file).name}", "digest": f"sha256:{self._digest}",
            "frames": "all frames of all clips", "covariance": "unbiased, float64",
            "floor": "real clips at even against real clips at odd places",
        }  # fmt: skip

    def update(self, real: Float[np.ndarray, "F D"], generated: Float[np.ndarray, "F D"]) -> None:
        """Count the features of one clip's frames.

        Raises:
            UserError: features that are not finite.
        """
        if self._generated is None:
            self._generated, *self._halves = (FeatureStatistics(real.shape[1]) for _ in range(3))
        self._halves[self._clips % 2].update(real)
        self._generated.update(generated)
        self._clips += 1

    def values(self) -> dict[str, float | int]:
        """`fid`, `fid_floor` (NaN below two clips), `fid_frames` and `fid_dimensions`."""
        assert self._generated is not None
        first, second = self._halves
        real = FeatureStatistics(first.dimension)
        real.merge(first)
        real.merge(second)
        enough = min(first.count, second.count) >= 2
        return {
            "fid": frechet_distance(real, self._generated),
            "fid_floor": frechet_distance(first, second) if enough else float("nan"),
            "fid_frames": self._generated.count,
            "fid_dimensions": self._generated.dimension,
        }

    @torch.inference_mode()
    def features(self, frames: UInt8[np.ndarray, "F H W 3"]) -> Float[np.ndarray, "F D"]:
        """RGB frames in [0, 255] -> the network's features, float64.

        Raises:
            UserError: the network refuses the frames, or its output is not (N, D).
        """
        parts = []
        for start in range(0, len(frames), _BATCH):
            batch = np.ascontiguousarray(frames[start : start + _BATCH].transpose(0, 3, 1, 2))
            try:
                parts.append(self._call(torch.from_numpy(batch).to(self._device)).double().cpu().numpy())
            except (RuntimeError, AttributeError) as error:
                last = str(error).strip().rpartition("\n")[2]
                raise UserError(f"the network refuses frames ({last})", where=self._file, remedy=_REMEDY) from error
        features = np.concatenate(parts)
        if features.ndim != 2:
            raise UserError(f"the network's output is {features.shape}", where=self._file, remedy=_REMEDY)
        return features

    def _call(self, frames: torch.Tensor) -> torch.Tensor:
        names = [argument.name for argument in self._network.forward.schema.arguments]
        # StyleGAN's file gives class probabilities unless it is asked for features.
        output: torch.Tensor = self._network(
            frames, **({"return_features": True} if "return_features" in names else {})
        )
        return output
