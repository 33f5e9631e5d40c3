"""Text files that are there as a whole or not at all."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable
from pathlib import Path


def replace_text(path: Path, lines: Iterable[str]) -> None:
    """Write a file under a temporary name and rename it; a file that says the same already is left as it is."""
    draft = path.with_name(path.name + ".tmp")
    with open(draft, "w", encoding="utf-8") as file:
        file.writelines(lines)
    replace_if_different(path, draft)


def replace_if_different(path: Path, draft: Path) -> None:
    """Put a finished draft in the place of a file, unless both hold the same bytes."""
    filecmp.clear_cache()  # it trusts sizes and times, which two quick drafts may share
    if path.is_file() and filecmp.cmp(path, draft, shallow=False):
        draft.unlink()
    else:
        draft.replace(path)
