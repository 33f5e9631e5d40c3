"""Aligned columns for the terminal, and protocols spelled out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eval.bootstrap import Estimate
from eval.report.findings import DASH, percent


def aligned(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Rows of equal length as lines; the first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        indent
        + "   ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def share_cell(estimate: Estimate) -> str:
    """A share in percent, with its interval."""
    if math.isnan(estimate.value):
        return DASH
    return f"{percent(estimate.value)} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def number_cell(estimate: Estimate, digits: int) -> str:
    """A number with its interval."""
    if math.isnan(estimate.value):
        return DASH
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def protocol_lines(protocol: Mapping[str, Any], indent: str = "    ") -> Iterator[str]:
    """Every item of a protocol, a line each; items within items have dotted names."""
    for key, value in protocol.items():
        if isinstance(value, Mapping):
            yield from protocol_lines({f"{key}.{inner}": item for inner, item in value.items()}, indent)
        else:
            yield f"{indent}{key}: {value}"
