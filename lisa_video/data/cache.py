"""`ClipCache`: reads what `lisa-video data cache` wrote, from a folder or an object store.

    OUT/cache.json              what it was made with: codec, number type, mirrored copies, manifest
    OUT/clips.npz               where each clip lies
    OUT/frames-HxW/             litdata shards: one record a clip, one row a frame: latents, embedding, place of picture
    OUT/bytes/                  litdata shards: one record a clip's lossless pictures, or its keypoint file
    OUT/parts/                  which shards were written together, see `data_tools/cache.py`

A sample is a window of a record, and only its bytes are read: on a disk through a memory map, elsewhere as ranges. So
the order of clips may be any, and there is nothing to download first. The formats are litdata's own, and litdata reads
the local ones; every other place is reached through fsspec.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import json
import tempfile
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import fsspec
import fsspec.asyn
import numpy as np
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, ValidationError

from lisa_video.data.manifest import ClipRecord
from lisa_video.errors import UserError

VERSION = 1
FACTS, TABLE, BYTES = "cache.json", "clips.npz", "bytes"


class CacheFacts(BaseModel):
    """What all clips of a cache have in common.

    Attributes:
        schema_name: of the file.
        version: of the layout.
        codec: digest of the weights and the contract of the network that encoded the frames.
        dtype: of latents and embeddings.
        mirrored: whether the mirrored frames were encoded too.
        span: frames from the first to the last of the shortest training clip that the cache can serve: later frames of
            a record cannot be a reference, so their pictures are not kept.
        manifest: digest of the manifest that it was last built from.
        broken: clips of that manifest that could not be encoded: key in hexadecimal -> reason.
        parts: names of the parts, in the order of the records; more are only ever added behind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_name: Literal["lisa_video.cache"] = "lisa_video.cache"
    version: Literal[1] = 1
    codec: str
    dtype: Literal["float16", "float32"]
    mirrored: bool
    span: int
    manifest: str
    broken: dict[str, str] = {}
    parts: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """What must stay while a run goes on, in words."""
        return f"codec {self.codec}, {self.dtype}"


def clip_key(record: ClipRecord, size: tuple[int, int]) -> bytes:
    """16 bytes that name a clip at a size, and change with the bytes of its video or the choice of its frames."""
    facts = record.model_dump(include={"clip_id", "source_digest", "start_frame", "num_frames", "frame_stride"})
    content = json.dumps([facts, record.width, record.height, *size], sort_keys=True)
    return hashlib.sha256(content.encode()).digest()[:16]


def frames_store(size: tuple[int, int]) -> str:
    """Name of the store of frames of a size (H, W)."""
    return f"frames-{size[0]}x{size[1]}"


class Request(NamedTuple):
    """Rows [start, start + frames) of some fields of a record of a store."""

    store: str
    record: int
    start: int
    frames: int
    fields: tuple[str, ...] = ("bytes",)


class ClipCache:
    """A cache opened for reading; may be handed to worker processes, each opens the shards for itself.

    Args:
        url: folder, or any URL that fsspec knows (`s3://bucket/folder`; its settings come from fsspec's own config).

    Raises:
        UserError: no cache there, of another version, or a package that fsspec needs for the URL is missing.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            self._filesystem, self._root = fsspec.core.url_to_fs(self.url)
            self.facts = CacheFacts.model_validate_json(self._filesystem.cat_file(f"{self._root}/{FACTS}"))
            with np.load(io.BytesIO(self._filesystem.cat_file(f"{self._root}/{TABLE}"))) as table:
                self.table: dict[str, np.ndarray] = dict(table)
        except ValidationError as error:
            what = f"not a latent cache of version {VERSION} ({error.errors()[0]['msg']})"
            raise UserError(what, where=self.url, remedy="build it with this release, in a new folder") from error
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError("no latent cache here", where=self.url, remedy="run `lisa-video data cache OUT`") from error
        except (ImportError, ValueError) as error:  # fsspec names the package that a protocol needs
            raise UserError(f"cannot open the cache ({error})", where=self.url, remedy="correct the URL") from error
        self._is_local = isinstance(self._filesystem, LocalFileSystem)
        self._stores: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stores": {}}

    def places(self, keys: Sequence[bytes | None]) -> np.ndarray:
        """Rows of the table for clips, (N,) int64; -1 where a clip is not in the cache."""
        rows = {key.tobytes(): row for row, key in enumerate(self.table["key"])}
        return np.array([rows.get(key, -1) if key is not None else -1 for key in keys], np.int64)

    def windows(self, *requests: Request) -> list[dict[str, np.ndarray]]:
        """Rows of records; from an object store all at once.

        Raises:
            UserError: a shard is missing or damaged.
        """
        for store in {request.store for request in requests} - self._stores.keys():
            self._stores[store] = self._open(store)
        # A network that fails is no reason to go on without the clip: that error passes, and the run can be resumed.
        damage = (OSError,) if self._is_local else (FileNotFoundError,)
        try:
            if self._is_local:
                return [self._stores[request.store].read_window(*request[1:]) for request in requests]
            # In fsspec's own thread: the caller's may be running a loop already.
            return asyncio.run_coroutine_threadsafe(self._gather(requests), fsspec.asyn.get_loop()).result()
        except (*damage, IndexError, ValueError) as error:
            remedy = "delete the shard and the part that names it, then run `lisa-video data cache` again"
            raise UserError(f"cannot read {requests} ({error})", where=self.url, remedy=remedy) from error

    async def _gather(self, requests: Sequence[Request]) -> list[dict[str, np.ndarray]]:
        windows = [self._stores[request.store].aread_window(*request[1:]) for request in requests]
        return list(await asyncio.gather(*windows))

    def _open(self, store: str) -> Any:
        try:
            from litdata import StreamingDataset, TemporalArrayLoader
            from litdata.streaming.resolver import Dir
        except ImportError as error:
            raise UserError("litdata is missing", where=self.url, remedy="pip install 'lisa-video[cache]'") from error
        folder = f"{self._root}/{store}"
        if self._is_local:
            return StreamingDataset(Dir(path=folder), item_loader=TemporalArrayLoader())
        # litdata would keep the index for ever in a folder of its own; a cache may grow.
        with tempfile.TemporaryDirectory() as index:
            self._filesystem.get_file(f"{folder}/index.json", f"{index}/index.json")
            place = Dir(path=index, url=f"{_register_fsspec()}{self.url}/{store}")
            dataset = StreamingDataset(place, item_loader=TemporalArrayLoader())
            _ = dataset.frame_counts  # reads the index
        return dataset


@functools.lru_cache(maxsize=1)
def _register_fsspec() -> str:
    """Teach litdata to read byte ranges of any URL through fsspec; returns the prefix to put before the URL."""
    from litdata.streaming.downloader import Downloader, register_downloader

    class FsspecDownloader(Downloader):  # type: ignore[misc]
        def download_bytes(self, remote_chunkpath: str, offset: int, length: int, local_chunkpath: str) -> bytes:
            filesystem, path = fsspec.core.url_to_fs(remote_chunkpath.removeprefix(prefix))
            data: bytes = filesystem.cat_file(path, start=offset, end=offset + length)
            if len(data) != length:
                raise ValueError(f"{path} ends early")
            return data

    prefix = "fsspec+"
    register_downloader(prefix, FsspecDownloader, overwrite=True)
    return prefix
