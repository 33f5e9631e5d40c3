"""Which videos are held out: a hash of the content decides, so more videos never move others between splits.

A hash leaves tiny data sets without any held-out video, or without any other. Then the video that comes next to the
threshold is moved over, and `OUT/splits.json` remembers the move: later videos do not take it back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_tools.atomic import replace_text
from data_tools.settings import ManifestSettings
from lisa_video.data.manifest import Split

SPLITS_NAME = "splits.json"


def assign_splits(out: Path, digests: Iterable[str], settings: ManifestSettings) -> dict[str, Split]:
    """Split of each video; at least one of each split, if there are two videos and a fraction between 0 and 1.

    Args:
        out: folder of the build, which remembers moves.
        digests: of the videos that have clips.
        settings: fraction and seed.
    """
    places = {digest: _place(settings.seed, digest) for digest in sorted(digests)}
    moved = _read_moves(out, settings)
    splits: dict[str, Split] = {
        digest: moved.get(digest, "val" if place < settings.val_fraction else "train")
        for digest, place in places.items()
    }
    if len(splits) >= 2 and 0 < settings.val_fraction < 1 and len(set(splits.values())) == 1:
        none_held_out = "val" not in splits.values()
        nearest = (min if none_held_out else max)(places, key=lambda digest: places[digest])
        splits[nearest] = moved[nearest] = "val" if none_held_out else "train"
        replace_text(out / SPLITS_NAME, [json.dumps({**_decided_by(settings), "moved": moved}) + "\n"])
    return splits


def _place(seed: int, digest: str) -> float:
    """A number in [0, 1), evenly spread."""
    return int.from_bytes(hashlib.sha256(f"{seed} {digest}".encode()).digest()[:6], "big") / 2**48


def _read_moves(out: Path, settings: ManifestSettings) -> dict[str, Split]:
    """Moves made under the same settings."""
    try:
        known = json.loads((out / SPLITS_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    decided_by = _decided_by(settings)
    return known["moved"] if decided_by == {name: known[name] for name in decided_by} else {}


def _decided_by(settings: ManifestSettings) -> dict[str, Any]:
    return {"seed": settings.seed, "val_fraction": settings.val_fraction}
