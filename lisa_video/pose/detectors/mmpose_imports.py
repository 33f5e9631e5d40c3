"""Makes mmpose 1.3.2 importable beside current torch and numpy, without a compiled mmcv.

Two binary modules stand between them and mmpose. Both get a replacement in `sys.modules`, before the first import of
mmpose; nothing on disk is changed, and a module that works is never replaced.

- `mmcv._ext`, mmcv's compiled operators. mmpose and mmdet import them on load; mmcv's sources do not build against
  current torch, and mmcv-lite comes without. Of all of them detection needs non-maximum suppression only, which
  torchvision has too.
- `xtcocotools._mask`, COCO's run-length masks. Its wheel was compiled for numpy 1; pycocotools has the same code
  compiled for numpy 2.

The set of versions that was tried is in `third_party/mmpose.txt`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from lisa_video.errors import UserError

INSTALL = "pip install -e '.[all]' -r third_party/mmpose.txt"
"""The one command, run in the root of the repository."""


class _MissingOperators(ModuleType):
    """Stands for `mmcv._ext`: has every operator by name, and refuses when one is called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_: object, **__: object) -> None:
            raise UserError(
                f"this model needs mmcv's compiled operator {name!r}, which mmcv-lite does not have",
                remedy="use a model without it (RTMPose, RTMW, DWPose, RTMDet and YOLOX are), or install the full mmcv",
            )

        return missing


def prepare_mmpose() -> None:
    """Put the replacements in place; call it before each import of mmpose or mmdet. Costs nothing the second time.

    Raises:
        UserError: mmpose or something that it needs is not installed.
    """
    try:
        # What is said on load (moved modules, pkg_resources) is known, harmless, and nothing that a user could change.
        with warnings.catch_warnings(action="ignore"):
            _provide_operators()
            _provide_masks()
            for name in ("mmpose.apis", "mmdet.apis"):
                importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"mmpose cannot be used: {error}", remedy=f"run `{INSTALL}` in the repository") from error


def _provide_operators() -> None:
    importlib.import_module("mmcv")
    if "mmcv._ext" in sys.modules or importlib.util.find_spec("mmcv._ext") is not None:
        return
    operators: Any = _MissingOperators("mmcv._ext")
    operators.__spec__ = ModuleSpec("mmcv._ext", None)  # mmengine asks for it
    operators.nms = _nms
    sys.modules["mmcv._ext"] = operators


def _nms(boxes: Any, scores: Any, iou_threshold: float = 0.5, offset: int = 0) -> Any:
    """Mmcv's signature; `offset` 1 would mean boxes that include their last pixel."""
    from torchvision.ops import nms

    assert offset == 0
    return nms(boxes, scores, iou_threshold)


def _provide_masks() -> None:
    try:
        importlib.import_module("xtcocotools._mask")
    except (ImportError, ValueError):  # no wheel for this Python; or compiled for numpy 1: numpy.dtype size changed
        sys.modules["xtcocotools._mask"] = importlib.import_module("pycocotools._mask")
