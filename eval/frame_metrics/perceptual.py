"""LPIPS: distance of frames in the features of a network, weighted by what people said about pairs of pictures.

Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR 2018. The package lpips
carries the weights of the linear heads; those of the backbone are torchvision's ImageNet weights, a file that the
user names, since nothing is downloaded here.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8

from eval.frame_metrics.metric import CHUNK, Column, FrameMetric, unit_tensor
from lisa_video.errors import UserError

Backbone = Literal["alex", "vgg", "squeeze"]
PUBLISHED: dict[str, tuple[str, str]] = {
    "alex": ("alexnet-owt-7be5be79.pth", "7be5be79"),
    "vgg": ("vgg16-397923af.pth", "397923af"),
    "squeeze": ("squeezenet1_1-b8a52dc0.pth", "b8a52dc0"),
}
"""torchvision's file, and the first digits of its sha256, which torchvision puts into the name."""


class LPIPS(FrameMetric):
    """Mean over frames; 0 for equal frames.

    Args:
        backbone_file: torchvision's state dict, see `PUBLISHED`; other weights of the same network are accepted, and
            said to be other ones in the protocol.
        backbone: which network.
        device: where to compute.

    Raises:
        UserError: lpips is not installed, no such file, or weights that do not fit the network.
    """

    columns = (Column("lpips", "LPIPS", "lower", 4),)
    min_side = 32  # below, the backbones have no cell left

    def __init__(
        self, backbone_file: str | Path | None, backbone: Backbone = "alex", device: str | torch.device = "cpu"
    ) -> None:
        try:
            import lpips
        except ImportError as error:
            raise UserError("lpips is not installed", remedy="pip install 'lisa-video[metrics]'") from error
        name, start = PUBLISHED[backbone]
        if backbone_file is None or not Path(backbone_file).is_file():
            raise UserError(
                f"LPIPS needs the weights of its backbone, {name} of torchvision",
                where=backbone_file,
                remedy=f"get {name} from torchvision's model page, and name it with --lpips-backbone",
            )
        self._backbone, self._device = backbone, device
        self._digest = hashlib.sha256(Path(backbone_file).read_bytes()).hexdigest()
        self._published = self._digest.startswith(start)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lpips' use of torchvision's old argument
            self._net = lpips.LPIPS(net=backbone, pnet_rand=True, verbose=False)
        _load_backbone(self._net.net, Path(backbone_file))
        self._net = self._net.eval().to(device)

    @property
    def protocol(self) -> dict[str, Any]:
        """See `FrameMetric`."""
        return {
            "version": "0.1 of the package lpips", "backbone": self._backbone,
            "backbone_digest": f"sha256:{self._digest}",
            "backbone_weights": "torchvision's ImageNet weights, as published" if self._published
            else "NOT the published ones: numbers are not LPIPS as others report it",
            "size": "that of the frames",
        }  # fmt: skip

    @torch.inference_mode()
    def measure(self, real: UInt8[np.ndarray, "F H W 3"], generated: UInt8[np.ndarray, "F H W 3"]) -> dict[str, float]:
        """See `FrameMetric`."""
        values = []
        for start in range(0, len(real), CHUNK):
            pair = [unit_tensor(video[start : start + CHUNK]).to(self._device) for video in (generated, real)]
            values.append(self._net(*pair, normalize=True).flatten().cpu().numpy())
        return {"lpips": float(np.concatenate(values).mean())}


def _load_backbone(network: torch.nn.Module, path: Path) -> None:
    """Torchvision's `features.N.*` are lpips' `sliceM.N.*`."""
    remedy = "name torchvision's state dict of the chosen backbone"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
    except Exception as error:  # unpicklers raise anything
        raise UserError(f"cannot read backbone weights ({type(error).__name__})", where=path, remedy=remedy) from error
    own = network.state_dict()
    wanted = {name: found.get(name.partition(".")[2]) for name in own}
    if wrong := [name for name, value in wanted.items() if value is None or value.shape != own[name].shape]:
        raise UserError(f"weights do not fit: {', '.join(wrong[:3])} ...", where=path, remedy=remedy)
    network.load_state_dict(wanted)
