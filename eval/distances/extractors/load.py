"""Extractors by name, as the commands take them."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

from eval.distances.extractors.resizing import Resize
from eval.distances.features import FeatureExtractor, KeypointNetFeatures
from lisa_video.errors import UserError

FORMS = "i3d[:PATH], i3d-torchscript:PATH, videomae:PATH, torchvision:NAME:PATH, keypoint-net[:PATH]"


def load_extractor(name: str, how: str = "squash", device: str = "cpu") -> FeatureExtractor:
    """The extractor of this name.

    Args:
        name: see `FORMS`.
        how: one of `Resize`.
        device: where to compute.

    Raises:
        UserError: no such extractor or resizing, or the weights are missing or wrong.
    """
    if how not in get_args(Resize):
        raise UserError(f"no resizing {how!r}", where="--resize", remedy=f"use one of {', '.join(get_args(Resize))}")
    resize = cast(Resize, how)
    kind, _, path = name.partition(":")
    if kind in ("i3d-torchscript", "videomae", "torchvision") and not path:
        raise UserError(f"{kind} needs weights", where="--extractor", remedy=f"use one of {FORMS}")
    if kind == "i3d":
        from eval.distances.extractors.i3d_features import i3d_features

        return i3d_features(path or None, resize, device)
    if kind == "i3d-torchscript":
        from eval.distances.extractors.i3d_features import torchscript_features

        return torchscript_features(path, resize, device)
    if kind == "videomae":
        from eval.distances.extractors.videomae_features import videomae_features

        return videomae_features(path, resize, device)
    if kind == "torchvision":
        from eval.distances.extractors.torchvision_features import torchvision_features

        network, _, weights = path.partition(":")
        return torchvision_features(network, weights, resize, device)
    if kind == "keypoint-net":
        from lisa_video.pose.detectors.keypoint_net import SHIPPED_KEYPOINT_NET

        if resize == "centre-crop":
            raise UserError("the keypoint network resizes by itself", where=name, remedy="--resize own")
        return KeypointNetFeatures.from_pretrained(Path(path) if path else SHIPPED_KEYPOINT_NET, device)
    raise UserError(f"no extractor {name!r}", where="--extractor", remedy=f"use one of {FORMS}")
