"""The files of a checkpoint: written beside training, listed in a manifest, and checked against it."""

from __future__ import annotations

import errno
import json
import os
import threading
import zlib
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

_MANIFEST = "manifest.json"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CHUNK = 2**24  # bytes


@final
class Writing:
    """What one rank writes of one checkpoint.

    In the background, `add` copies the state to host memory and a thread writes the copies after `start`, so training
    goes on meanwhile; else `add` writes at once and needs no copy.

    Args:
        background: as above.
    """

    def __init__(self, *, background: bool) -> None:
        self.files: dict[str, dict[str, int]] = {}
        """Size and check sum of each file that is written."""
        self.error: BaseException | None = None
        self._jobs: list[tuple[Any, Path]] = []
        self._thread = threading.Thread(target=self._run, daemon=True) if background else None

    def add(self, state: Any, path: Path) -> None:
        """Take a tree of tensors and other picklable values, as it is now."""
        if self._thread is not None:
            state = tree_map_only(Tensor, lambda tensor: tensor.detach().to("cpu", copy=True), state)
        self._jobs.append((state, path))
        if self._thread is None:
            self._run()

    def start(self) -> None:
        """All is added."""
        if self._thread is not None:
            self._thread.start()

    @property
    def going_on(self) -> bool:
        """Whether there is something left to write."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Until all is written, or a fault has ended it."""
        if self._thread is not None:
            self._thread.join()

    @property
    def disk_full(self) -> bool:
        """Whether the fault is a full disk."""
        return isinstance(self.error, OSError) and self.error.errno in _FULL

    def _run(self) -> None:
        try:
            while self._jobs:
                state, path = self._jobs.pop(0)
                with open(path, "wb") as file:
                    torch.save(state, file)
                    file.flush()
                    os.fsync(file.fileno())
                self.files[path.name] = {"bytes": path.stat().st_size, "crc32": _checksum(path)}
        except BaseException as error:  # told by the main thread
            self.error = error
            self._jobs.clear()


def write_manifest(folder: Path, files: dict[str, dict[str, int]], facts: dict[str, Any]) -> None:
    """List the files of a checkpoint, in JSON, and flush them and the folder to the disk."""
    with open(folder / _MANIFEST, "w", encoding="utf-8") as file:
        json.dump({**facts, "files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    flush_folder(folder)


def flush_folder(folder: Path) -> None:
    """Make the names of a folder's files durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The facts of a checkpoint, and its `files`."""
    manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    return manifest


def damage(folder: Path, part: int, parts: int) -> str | None:
    """What is wrong with a checkpoint, or None; looks at every `parts`-th of its files, from `part` on."""
    try:
        files = sorted(read_manifest(folder)["files"].items())[part::parts]
    except (OSError, ValueError, KeyError) as error:
        return f"{_MANIFEST} cannot be read: {error}"
    for name, noted in files:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != noted["bytes"]:
            return f"{name} has {path.stat().st_size:,} bytes, not {noted['bytes']:,}"
        if _checksum(path) != noted["crc32"]:
            return f"{name} has other content than was written"
    return None


def _checksum(path: Path) -> int:
    value = 0
    with open(path, "rb") as file:
        while block := file.read(_CHUNK):
            value = zlib.crc32(block, value)
    return value
