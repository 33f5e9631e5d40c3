"""VideoMAE from a folder in the layout of transformers: mean of the last layer's tokens."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from eval.distances.extractors.network import NetworkFeatures
from eval.distances.extractors.resizing import Resize, resize_clips, resize_rule
from lisa_video.data.manifest import file_digest
from lisa_video.errors import UserError

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # where the folder does not say


def videomae_features(path: str, resize: Resize, device: str | torch.device = "cpu") -> NetworkFeatures:
    """VideoMAE's encoder; a decoder or a classifier in the folder is left out.

    Args:
        path: folder with config.json and safetensors.
        resize: `squash` or `centre-crop`.
        device: where to compute.

    Raises:
        UserError: no such folder, not VideoMAE, or `own` resizing.
    """
    folder = Path(path)
    if resize == "own":
        raise UserError("VideoMAE has no resizing of its own", where=path, remedy="--resize squash or centre-crop")
    files = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not files:
        raise UserError(
            "no config.json and safetensors", where=path, remedy="name a folder that save_pretrained of VideoMAE wrote"
        )
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind != "videomae":
        raise UserError(f"the folder holds a {kind!r}", where=path, remedy="name a folder of VideoMAE")
    from transformers import VideoMAEModel

    net = VideoMAEModel.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False).to(device)
    preprocessing = folder / "preprocessor_config.json"
    facts = json.loads(preprocessing.read_text(encoding="utf-8")) if preprocessing.is_file() else {}
    mean, std = facts.get("image_mean", _MEAN), facts.get("image_std", _STD)
    shift, scale = (torch.tensor(values, device=device).view(3, 1, 1, 1) for values in (mean, std))
    config = net.config

    def embed(clips: Tensor) -> Tensor:
        inputs = (resize_clips(clips, config.image_size, resize) / 255.0 - shift) / scale
        tokens: Tensor = net(pixel_values=inputs.transpose(1, 2)).last_hidden_state
        return tokens.mean(dim=1)

    digests = "".join(file_digest(file) for file in files)
    return NetworkFeatures(
        embed, name="VideoMAE, mean of the last tokens",
        digest="sha256:" + hashlib.sha256(digests.encode()).hexdigest(), dimension=config.hidden_size,
        protocol={
            "resize": resize_rule(config.image_size, resize),
            "range": f"[0, 1], mean {list(mean)}, deviation {list(std)}",
            "pooling": "mean over the tokens of the last layer",
        },
        device=device, frames=(config.num_frames, config.num_frames),
    )  # fmt: skip
