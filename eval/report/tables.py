"""Tables of a comparison: one for each detector and one for the rest; for pages, Markdown and LaTeX alike.

A column holds numbers of one protocol only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from eval.bootstrap import Estimate
from eval.pose_accuracy.scores import Scores, threshold_key
from eval.report.arms import ArmResult, require_comparable
from eval.report.findings import DASH, number, percent, percent_interval
from eval.runs.evaluation import Evaluation
from eval.runs.scoring import Distance

TRUTH_NAME, CHANCE_NAME = "True frames", "Poses of other clips"


class Cell(NamedTuple):
    """A number and its 95 % interval, or a dash."""

    value: str
    interval: str = ""


class TableRow(NamedTuple):
    """One arm; `role` is "floor", "arm" or "ceiling"."""

    name: str
    role: str
    cells: list[Cell]


class Table(NamedTuple):
    """Numbers side by side.

    Attributes:
        title: what is measured, and by what.
        protocols: (what, protocol id) of the columns; a single one without a name if all have the same.
        heads: of the columns after the arm's name.
        rows: of as many cells as heads.
        first: head of the column of names.
    """

    title: str
    protocols: list[tuple[str, str]]
    heads: list[str]
    rows: list[TableRow]
    first: str = "Arm"


class Bar(NamedTuple):
    """A bar with its whisker, in percent of the full width; `kind` picks the colour."""

    name: str
    kind: str
    text: str
    value: float
    low: float
    span: float


def tables(arms: Sequence[ArmResult], floor: ArmResult | None, ceiling: ArmResult | None = None) -> list[Table]:
    """Pose accuracy by each detector, then pictures, losses and training.

    Raises:
        UserError: protocols differ.
    """
    everyone = _with_roles(arms, floor, ceiling)
    require_comparable([arm for arm, _ in everyone])
    found = [_pose_table(everyone, place) for place in range(len(arms[0].evaluation.poses))]
    return [*found, _other_table(everyone)]


def pose_bars(
    arms: Sequence[ArmResult], floor: ArmResult | None, threshold: float, ceiling: ArmResult | None, place: int
) -> list[Bar]:
    """PCK of chance, floor, arms and ceilings at one threshold, by the detector of this place."""
    key, own = threshold_key(threshold), arms[0].evaluation.poses[place]
    shown = [(CHANCE_NAME, "floor", own.chance[key])]
    shown += [(floor.name, "floor", floor.evaluation.poses[place].pck[key])] if floor else []
    shown += [(arm.name, f"arm{number % 4}", arm.evaluation.poses[place].pck[key]) for number, arm in enumerate(arms)]
    shown += [(ceiling.name, "ceiling", ceiling.evaluation.poses[place].pck[key])] if ceiling else []
    shown.append((TRUTH_NAME, "ceiling", own.ceiling[key]))
    return [
        Bar(name, kind, percent(share.value), 100 * share.value, 100 * share.low, 100 * (share.high - share.low))
        for name, kind, share in shown
    ]


def markdown_table(arms: Sequence[ArmResult], floor: ArmResult | None = None, ceiling: ArmResult | None = None) -> str:
    """The tables of arms in Markdown, with their protocols' ids.

    Raises:
        UserError: protocols differ.
    """
    return markdown(tables(arms, floor, ceiling))


def markdown(several: Sequence[Table]) -> str:
    """Tables in Markdown."""
    return "\n".join(_markdown(table) for table in several)


def latex(several: Sequence[Table]) -> str:
    """Tables for LaTeX (needs booktabs)."""
    return "\n".join(_latex(table) for table in several)


def checkpoint_table(evaluations: Mapping[int, Evaluation]) -> str:
    """Scores of a run's checkpoints in Markdown, a row a step.

    Raises:
        UserError: protocols differ.
    """
    arms = [ArmResult(f"{step:,}", one) for step, one in evaluations.items()]
    return "\n".join(
        _markdown(table._replace(rows=[row for row in table.rows if row.role == "arm"], first="Step"))
        for table in tables(arms, None)
    )


def detector_name(scores: Scores) -> str:
    """Short name of a detector for heads and titles."""
    return scores.detector.split(",")[0]


def _with_roles(
    arms: Sequence[ArmResult], floor: ArmResult | None, ceiling: ArmResult | None
) -> list[tuple[ArmResult, str]]:
    rows = [(floor, "floor")] if floor else []
    rows += [(arm, "arm") for arm in arms]
    return rows + ([(ceiling, "ceiling")] if ceiling else [])


def _pose_table(everyone: Sequence[tuple[ArmResult, str]], place: int) -> Table:
    first = everyone[0][0].evaluation.poses[place]
    rows = [TableRow(CHANCE_NAME, "floor", [*_pck_cells(first.chance), Cell(DASH)])]
    for arm, role in everyone:
        scores = arm.evaluation.poses[place]
        rows.append(TableRow(arm.name, role, [*_pck_cells(scores.pck), Cell(percent(scores.error_diagonal))]))
    rows.append(TableRow(TRUTH_NAME, "ceiling", [*_pck_cells(first.ceiling), Cell(DASH)]))
    heads = [*(f"PCK@{key} ↑" for key in first.pck), "Joint error ↓"]
    return Table(f"Pose accuracy by {detector_name(first)}", [("", first.protocol_id)], heads, rows)


def _other_table(everyone: Sequence[tuple[ArmResult, str]]) -> Table:
    parts = everyone[0][0].evaluation
    losses = [arm.evaluation.loss for arm, _ in everyone if arm.evaluation.loss is not None]
    heads = [f"{distance.label} ↓" for distance in parts.distances] + ["PSNR ↑", "Held-out loss ↓", "Pose gap ↑"]
    protocols = [(distance.label, distance.protocol_id) for distance in parts.distances]
    protocols += [("PSNR", parts.pixels.protocol_id)]
    protocols += [("held-out loss", losses[0].protocol_id)] if losses else []
    rows = [TableRow(arm.name, role, _other_cells(arm)) for arm, role in everyone]
    halves = [_floor_cell(distance) for distance in parts.distances]
    rows.append(TableRow("Halves of the true clips", "ceiling", [*halves, *[Cell(DASH)] * 6]))
    return Table("Pictures, loss and training", protocols, [*heads, "Steps", "Training", "Parameters"], rows)


def _other_cells(arm: ArmResult) -> list[Cell]:
    parts = arm.evaluation
    cells = [
        Cell(number(distance.frechet.value), f"{number(distance.frechet.low)} to {number(distance.frechet.high)}")
        for distance in parts.distances
    ]
    cells.append(Cell(f"{parts.pixels.mean_psnr_db:.1f} dB"))
    cells.append(Cell(DASH if parts.loss is None else f"{parts.loss.mean:.4f}"))
    cells.append(Cell(DASH) if parts.loss is None else _gap_cell(parts.loss.pose_gap))
    seconds = DASH if arm.training_seconds is None else f"{arm.training_seconds:,.0f} s"
    return [*cells, Cell(_count(arm.steps)), Cell(seconds), Cell(_count(arm.parameters))]


def _gap_cell(gap: Estimate) -> Cell:
    return Cell(f"{percent(gap.value)}", percent_interval(gap))


def _floor_cell(distance: Distance) -> Cell:
    return Cell(number(distance.floor))


def _pck_cells(pck: Mapping[str, Estimate]) -> list[Cell]:
    return [Cell(percent(share.value), percent_interval(share)) for share in pck.values()]


def _count(value: int | None) -> str:
    return DASH if value is None else f"{value:,}"


def _markdown(table: Table) -> str:
    lines = [f"**{table.title}**{_protocol_text(table)}", "", _pipes([table.first, *table.heads])]
    lines.append("|" + "---|" * (len(table.heads) + 1))
    for row in table.rows:
        cells = [f"{cell.value} [{cell.interval}]" if cell.interval else cell.value for cell in row.cells]
        lines.append(_pipes([row.name, *cells]))
    return "\n".join([*lines, ""])


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _latex(table: Table) -> str:
    columns = "l" + "r" * len(table.heads)
    lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", _latex_row([table.first, *table.heads]), "\\midrule"]
    lines += [_latex_row([row.name, *(cell.value for cell in row.cells)]) for row in table.rows]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", f"% {table.title}{_protocol_text(table)}", ""])


def _latex_row(cells: Sequence[str]) -> str:
    special = {"↑": "$\\uparrow$", "↓": "$\\downarrow$", "\N{EN DASH}": "--", "é": "\\'e"}
    special |= {character: f"\\{character}" for character in "%&_#"}
    return " & ".join("".join(special.get(character, character) for character in cell) for cell in cells) + " \\\\"


def _protocol_text(table: Table) -> str:
    if not table.protocols:
        return ""
    named = (f"{what} {identity}".strip() for what, identity in table.protocols)
    return f" (protocol{'s' * (len(table.protocols) > 1)} {', '.join(named)})"
