"""JSON files of results: NaN becomes null, and a file appears whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_json(path: str | Path, values: Any) -> None:
    """Write JSON values, under a temporary name first, which is this process's own; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    draft.write_text(json.dumps(without_nan(values), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)


def without_nan(value: Any) -> Any:
    """JSON values with null for NaN; tuples become lists."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def with_nan(value: Any, keep: Sequence[str] = ()) -> Any:
    """The inverse: NaN for null, but not below the keys in `keep`."""
    if isinstance(value, dict):
        return {key: item if key in keep else with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_nan(item) for item in value]
    return math.nan if value is None else value
