"""The result of `lisa-video eval fvd` for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator

from eval.distances.fvd import FVDResult
from eval.report.findings import DASH
from eval.report.text_table import aligned, number_cell, protocol_lines


def result_lines(result: FVDResult) -> Iterator[str]:
    """The numbers, what has to be known about them, and the protocol, line by line."""
    real, fake = result.real, result.fake
    halves = f"halves of {real.clips // 2} real clips"
    rows = [("FVD", number_cell(result.frechet, 2), "95 % of the spread over clips, without the bias of small sets")]
    if result.infinite is not None:
        rows.append(("FVD-infinity", f"{result.infinite.value:.2f}", "extrapolated to infinitely many clips"))
    floor = DASH if math.isnan(result.floor) else f"{result.floor:.2f}"
    rows.append(("FVD floor", floor, f"real against real, {halves}"))
    error = DASH if math.isnan(result.kernel.error) else f"{result.kernel.error:.4f}"
    rows.append(("KVD", f"{result.kernel.value:.4f} ± {error}", "unbiased; standard error"))
    yield f"{fake.clips} clips of {fake.folder} against {real.clips} clips of {real.folder}"
    for row, (_, _, meaning) in zip(aligned([row[:2] for row in rows]), rows, strict=True):
        yield f"{row}   {meaning}"
    for note in result.notes:
        yield f"  note: {note}"
    yield f"protocol {result.protocol_id}"
    yield from protocol_lines(result.protocol)
