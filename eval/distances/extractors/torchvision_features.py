"""torchvision's video networks with weights from a file: what enters the last, linear layer."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from eval.distances.extractors.network import NetworkFeatures
from eval.distances.extractors.resizing import Resize, resize_clips, resize_rule
from lisa_video.data.manifest import file_digest
from lisa_video.errors import UserError

_HEADS = ("fc", "classifier", "head")
_FRAMES = {"mvit_v1_b": (16, 16), "mvit_v2_s": (16, 16), "s3d": (14, None)}
"""Lengths of clips that these networks take; the others take any."""


def torchvision_features(name: str, path: str, resize: Resize, device: str | torch.device = "cpu") -> NetworkFeatures:
    """A network of `torchvision.models.video`, such as r3d_18, mvit_v2_s or s3d.

    Args:
        name: of the network.
        path: file of its state dictionary; nothing is downloaded.
        resize: `own`: the transforms of torchvision's weights; otherwise our rules, to the size that those crop to.
        device: where to compute.

    Raises:
        UserError: no such network or file, or weights that do not fit.
    """
    if name not in models.list_models(module=models.video):
        known = ", ".join(models.list_models(module=models.video))
        raise UserError(f"torchvision has no video network {name!r}", where="--extractor", remedy=f"use one of {known}")
    net, dimension = _load(name, Path(path))
    net = net.eval().requires_grad_(False).to(device)
    preset = models.get_model_weights(name).DEFAULT.transforms()  # numbers only; the weights are not downloaded
    side = preset.crop_size[0]
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1, 1) for values in (preset.mean, preset.std))

    def embed(clips: Tensor) -> Tensor:
        if resize == "own":
            inputs = preset(clips.transpose(1, 2).contiguous())
        else:
            inputs = (resize_clips(clips, side, resize) / 255.0 - mean) / std
        found: Tensor = net(inputs)
        return found.flatten(1)

    own = f"torchvision's: to {preset.resize_size}, then the {side} x {side} in the middle; bilinear, no antialias"
    protocol: dict[str, Any] = {
        "resize": own if resize == "own" else resize_rule(side, resize),
        "range": f"[0, 1], mean {preset.mean}, deviation {preset.std}",
        "pooling": "input of the last linear layer",
    }
    return NetworkFeatures(
        embed, name=f"torchvision {name}", digest=file_digest(path), dimension=dimension, protocol=protocol,
        device=device, frames=_FRAMES.get(name, (1, None)),
    )  # fmt: skip


def _load(name: str, path: Path) -> tuple[nn.Module, int]:
    """The network without its last layer, and the numbers that entered that."""
    if not path.is_file():
        raise UserError("no such weights file", where=path, remedy=f"save the state dictionary of {name} there")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        head = next(head for head in _HEADS if any(key.startswith(f"{head}.") for key in state))
        last = [value for key, value in state.items() if key.startswith(f"{head}.") and key.endswith("weight")][-1]
        net = models.get_model(name, num_classes=last.shape[0])
        net.load_state_dict(state)
    except (RuntimeError, pickle.UnpicklingError, StopIteration, IndexError, TypeError, EOFError) as error:
        raise UserError(
            f"not the state dictionary of {name} ({(str(error).strip() or type(error).__name__).splitlines()[0]})",
            where=path,
            remedy=f"save it with torch.save({name}.state_dict(), PATH)",
        ) from error
    setattr(net, head, nn.Identity())
    return net, int(last.shape[1])
