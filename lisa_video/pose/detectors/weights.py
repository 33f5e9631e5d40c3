"""Files of weights: they must be there, since nothing is ever downloaded, and their digest names a detector."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lisa_video.errors import UserError


def weights_file(path: str | None, key: str, suffix: str) -> Path:
    """The file that a setting names.

    Args:
        path: value of the setting.
        key: its name, for the message.
        suffix: what such files end in, such as ".onnx".

    Raises:
        UserError: the setting is empty, or there is no such file.
    """
    if path is None or not Path(path).is_file():
        raise UserError(
            f"{key} is not set" if path is None else "no such file, and weights are never downloaded",
            where=path,
            remedy=f"set {key} to a {suffix} file on this machine; the README says where to get one",
        )
    return Path(path)


def file_digest(path: Path) -> str:
    """`sha256:` and the digest of the file's bytes."""
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def join_digests(*digests: str) -> str:
    """One digest for several; an empty one, of a detector without weights, counts nothing."""
    known = [digest for digest in digests if digest]
    return known[0] if len(known) == 1 else "sha256:" + hashlib.sha256("".join(known).encode()).hexdigest()
