"""Parts of a latent cache: shards that were written together, and become visible together.

A part is one litdata chunk in each store that it has records for, and `parts/NAME.json`, which is renamed into place
last. So a killed build loses the part in the making and nothing else. `publish` joins all parts into litdata's indices
and our table of clips; parts keep their order, so a record's number never changes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lisa_video.data.cache import BYTES, FACTS, TABLE, CacheFacts
from lisa_video.errors import UserError

_ONE_CHUNK = 2**31  # bytes; the part decides when it is full, not litdata
_SMALL = ("embedding", "embedding_mirrored", "picture")
"""Fields of a frame that are read together, with one request."""


class EncodedClip(NamedTuple):
    """What is kept of a clip.

    Attributes:
        fields: arrays of F rows: `latents`, `embedding`, both `_mirrored` too if needed, and `picture`, the start and
            size of each frame's picture (size 0: none).
        pictures: all pictures, one behind the other.
        poses: the bytes of the keypoint file.
    """

    fields: dict[str, np.ndarray]
    pictures: bytes
    poses: bytes


class PartWriter:
    """Collects records in memory and writes them as one part.

    Args:
        out: folder of the cache.

    Raises:
        UserError: litdata is not installed.
    """

    def __init__(self, out: Path) -> None:
        try:
            import litdata  # noqa: F401
        except ImportError as error:
            raise UserError("litdata is missing", remedy="pip install 'lisa-video[cache]'") from error
        self.out, self.num_bytes = out, 0
        self.name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        self._draft = out / "parts" / f"{self.name}.tmp"
        self._stores: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        self._clips: list[dict[str, Any]] = []

    def add(self, key: bytes, store: str, clip: EncodedClip) -> None:
        """Add a clip whose frames go to the given store."""
        frames = self._add(store, clip.fields)
        pictures, poses = (self._add(BYTES, {"bytes": np.frombuffer(c, np.uint8)}) for c in (clip.pictures, clip.poses))
        digest = hashlib.sha256(clip.poses).hexdigest()
        numbers = {"frames": frames, "pictures": pictures, "poses": poses, "poses_size": len(clip.poses)}
        self._clips.append({"key": key.hex(), "store": store, **numbers, "poses_digest": digest})

    def _add(self, store: str, fields: Mapping[str, np.ndarray]) -> int:
        """Add a record of rows, frames first in every field; returns its number within the part."""
        number = self._counts.get(store, 0)
        if store not in self._stores:
            self._stores[store] = self._open(store, tuple(fields))
        self._stores[store][number] = dict(fields)
        self._counts[store] = number + 1
        self.num_bytes += sum(array.nbytes for array in fields.values())
        return number

    def close(self) -> None:
        """Write the part; without a clip nothing is written."""
        if not self._clips:
            return
        stores = {}
        for store, writer in self._stores.items():
            writer.done()
            index = json.loads(next((self._draft / store).glob("*index.json")).read_text(encoding="utf-8"))
            (chunk,) = index["chunks"]
            (self.out / store).mkdir(exist_ok=True)
            os.replace(self._draft / store / chunk["filename"], self.out / store / f"{self.name}.bin")
            stores[store] = {"chunk": {**chunk, "filename": f"{self.name}.bin"}, "config": index["config"]}
        content = json.dumps({"stores": stores, "clips": self._clips})
        write_atomically(self.out / "parts" / f"{self.name}.json", content.encode())
        shutil.rmtree(self._draft)

    def _open(self, store: str, fields: tuple[str, ...]) -> Any:
        from litdata import TemporalArrayLoader
        from litdata.streaming.writer import BinaryWriter

        small = [name for name in _SMALL if name in fields]
        loader = TemporalArrayLoader(field_groups=[small] if small else None)
        return BinaryWriter(str(self._draft / store), chunk_bytes=_ONE_CHUNK, item_loader=loader)


def read_parts(out: Path) -> dict[str, dict[str, Any]]:
    """All complete parts by name, in the order of writing."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "parts").glob("*.json"))}


def clips_of(parts: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The clips of parts; of several with one key the last one counts."""
    for part in parts.values():
        yield from part["clips"]


def remove_leftovers(out: Path, parts: Mapping[str, dict[str, Any]]) -> None:
    """Delete what a killed build left: drafts, and shards that no part names."""
    for draft in (out / "parts").glob("*.tmp"):
        shutil.rmtree(draft) if draft.is_dir() else draft.unlink()
    for shard in out.glob("*/*.bin"):
        if shard.stem not in parts:
            shard.unlink()


def publish(out: Path, facts: CacheFacts) -> CacheFacts:
    """Write litdata's indices, the table of clips and the facts, each atomically; returns the facts.

    Args:
        out: folder of the cache.
        facts: with the parts that were published before; new ones are put behind them.
    """
    found = read_parts(out)
    known = [name for name in facts.parts if name in found]
    parts = {name: found[name] for name in [*known, *(name for name in found if name not in known)]}
    totals: dict[str, int] = {}
    indices: dict[str, dict[str, Any]] = {}
    rows: dict[str, tuple[int, int, int, int]] = {}
    for part in parts.values():
        for clip in part["clips"]:
            frames, stored = totals.get(clip["store"], 0) + clip["frames"], totals.get(BYTES, 0)
            rows[clip["key"]] = (frames, stored + clip["pictures"], stored + clip["poses"], clip["poses_size"])
        for store, entry in part["stores"].items():
            index = indices.setdefault(store, {"chunks": [], "config": entry["config"]})
            index["chunks"].append(entry["chunk"])
            totals[store] = totals.get(store, 0) + entry["chunk"]["chunk_size"]
    for store, index in indices.items():
        write_atomically(out / store / "index.json", json.dumps(index, sort_keys=True).encode())
    buffer = io.BytesIO()
    columns = np.array(list(rows.values()), np.int64).reshape(-1, 4).T
    keys = np.frombuffer(bytes.fromhex("".join(rows)), np.uint8).reshape(-1, 16)
    names = ("frames", "pictures", "poses", "poses_size")
    np.savez_compressed(buffer, key=keys, **dict(zip(names, columns, strict=True)))  # type: ignore[arg-type]
    write_atomically(out / TABLE, buffer.getvalue())
    facts = facts.model_copy(update={"parts": tuple(parts)})
    write_atomically(out / FACTS, facts.model_dump_json(indent=1).encode())
    return facts


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it."""
    draft = path.with_name(path.name + ".tmp")
    draft.write_bytes(content)
    draft.replace(path)
