"""What mmpose and mmdet models share: configs by name, checkpoints read without running their pickles."""

from __future__ import annotations

import _codecs
import logging
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lisa_video.errors import UserError

# What numpy arrays are pickled with: runners of mmengine put some into a checkpoint's `meta` (sigmas, flip indices).
_RECONSTRUCT: Any = np.zeros(1).__reduce__()[0]
_SCALAR: Any = np.float32(0).__reduce__()[0]
_NUMPY: list[Any] = [
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefdU"},
    *(
        (value, f"numpy.{core}.multiarray.{value.__name__}")
        for value in (_RECONSTRUCT, _SCALAR)
        for core in ("core", "_core")
    ),
    _codecs.encode,
]

logger = logging.getLogger(__name__)


def quiet() -> warnings.catch_warnings[None]:
    """Silence around calls into mmengine, mmpose and mmdet: outdated calls, and copies of configs that stay open."""
    return warnings.catch_warnings(action="ignore")


def find_config(name: str, folders: Sequence[Path]) -> Path:
    """A config file from its path, its path within one of the folders, or its bare name there.

    A config is a Python program that loading it runs, so it must come from somewhere trusted.

    Args:
        name: such as "my/config.py" or "rtmpose-m_8xb256-420e_coco-256x192".
        folders: of the configs that a package ships.

    Raises:
        UserError: no such config, or more than one of this name.
    """
    for path in (Path(name), *(folder / name for folder in folders)):
        if path.is_file():
            return path
    bare = Path(name).with_suffix(".py").name if name.endswith(".py") else f"{name}.py"
    found = [path for folder in folders for path in sorted(folder.rglob(bare))] if bare == Path(bare).name else []
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(
            "no such config file, and none of this name is shipped",
            where=name,
            remedy="name a config file, or one of those in " + " or ".join(str(folder) for folder in folders),
        )
    places = ", ".join(str(path) for path in found)
    raise UserError(f"{len(found)} shipped configs have this name: {places}", where=name, remedy="name one by its path")


def load_config(path: str | Path) -> Any:
    """Read a config of mmengine.

    Raises:
        UserError: it cannot be read, or has no model.
    """
    from mmengine.config import Config

    try:
        with quiet():
            config = Config.fromfile(path)
    except Exception as error:  # a config is a program, and may fail in any way
        raise UserError(f"cannot read the config ({error})", where=path, remedy="name a config of mmengine") from error
    if "model" not in config:
        raise UserError("the config describes no model", where=path, remedy="name the config of a model")
    return config


def load_weights(model: nn.Module, path: Path) -> dict[str, Any]:
    """Load a checkpoint into a model and return the `meta` beside the weights.

    Raises:
        UserError: no such file, it cannot be read, holds more than tensors and arrays, or is of another model.
    """
    weights, meta = _read_checkpoint(path)
    remedy = "name the config with which the checkpoint was trained"
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # sizes
        lines = str(error).splitlines()
        raise UserError(
            f"the weights do not fit the config ({lines[min(1, len(lines) - 1)].strip()})", where=path, remedy=remedy
        ) from error
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing:
        raise UserError(
            f"{len(missing)} weights of the model are missing, such as {missing[0]}", where=path, remedy=remedy
        )
    if unexpected:
        logger.warning(
            "%s: %d weights have no place in the model and are ignored, such as %s",
            path,
            len(unexpected),
            unexpected[0],
        )
    return meta


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with torch.serialization.safe_globals(_NUMPY):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            "the checkpoint holds more than weights, and reading that could run any program",
            where=path,
            remedy="if you trust it, keep only its weights (mmpose's tools/misc/publish_model.py), and name the result",
        ) from error
    except (OSError, EOFError, RuntimeError, KeyError, ValueError) as error:
        raise UserError(
            f"not a readable checkpoint ({error})", where=path, remedy="name a .pth file of mmpose or mmdet"
        ) from error
    weights = found.get("state_dict", found) if isinstance(found, dict) else None
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError("the checkpoint holds no weights", where=path, remedy="name a .pth file of mmpose or mmdet")
    meta = found.get("meta") if weights is not found else None
    # In place, because the dictionary carries the versions of its layers as an attribute. "module." comes from DDP.
    for name in [name for name in weights if name.startswith("module.")]:
        weights[name.removeprefix("module.")] = weights.pop(name)
    return weights, meta if isinstance(meta, dict) else {}
