"""Tables of a comparison: rows of formatted cells, bars with whiskers, and Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from eval.arms import ArmResult
from eval.bootstrap import Estimate
from eval.findings import DASH, percent, percent_interval
from eval.protocol import require_same_protocol
from eval.scores import Scores, threshold_key

TRUTH_NAME = "True frames"


class TableRow(NamedTuple):
    """One arm, as text.

    Attributes:
        name: of the arm.
        role: "floor", "arm" or "ceiling".
        pck: (value, 95 % interval) at each threshold.
        facts: (column head, cell); a dash where there is nothing to say.
    """

    name: str
    role: str
    pck: list[tuple[str, str]]
    facts: list[tuple[str, str]]


class Bar(NamedTuple):
    """A bar with its whisker, in percent of the full width; `kind` picks the colour."""

    name: str
    kind: str
    text: str
    value: float
    low: float
    span: float


def table_rows(arms: Sequence[ArmResult], floor: ArmResult | None, ceiling: ArmResult | None = None) -> list[TableRow]:
    """Floor, arms, and as ceilings the true frames through the codec and the true frames themselves."""
    rows = [_arm_row(floor, "floor")] if floor else []
    rows += [_arm_row(arm, "arm") for arm in arms]
    rows += [_arm_row(ceiling, "ceiling")] if ceiling else []
    truth = arms[0].scores
    facts = [(head, DASH) for head, _ in rows[0].facts]
    if not math.isnan(truth.frechet_floor):
        facts[1] = (facts[1][0], f"{truth.frechet_floor:.3g} *")
    return [*rows, TableRow(TRUTH_NAME, "ceiling", _pck_cells(truth.ceiling), facts)]


def pck_bars(
    arms: Sequence[ArmResult], floor: ArmResult | None, threshold: float, ceiling: ArmResult | None = None
) -> list[Bar]:
    """PCK of floor, arms and ceilings at one threshold."""
    key = threshold_key(threshold)
    shown = [(floor.name, "floor", floor.scores.pck[key])] if floor else []
    shown += [(arm.name, f"arm{place % 4}", arm.scores.pck[key]) for place, arm in enumerate(arms)]
    shown += [(ceiling.name, "ceiling", ceiling.scores.pck[key])] if ceiling else []
    shown.append((TRUTH_NAME, "ceiling", arms[0].scores.ceiling[key]))
    return [
        Bar(name, kind, percent(share.value), 100 * share.value, 100 * share.low, 100 * (share.high - share.low))
        for name, kind, share in shown
    ]


def markdown_table(arms: Sequence[ArmResult], floor: ArmResult | None = None, ceiling: ArmResult | None = None) -> str:
    """The table of arms in Markdown, with its protocol's id.

    Raises:
        UserError: protocols differ.
    """
    beside = [arm for arm in (floor, ceiling) if arm]
    require_same_protocol([arm.scores.protocol for arm in [*beside, *arms]])
    rows, scores = table_rows(arms, floor, ceiling), arms[0].scores
    heads = ["Arm", *(f"PCK@{key} ↑ [95 %]" for key in scores.pck), *(head for head, _ in rows[0].facts)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [row.name, *(f"{value} [{interval}]" for value, interval in row.pck), *(cell for _, cell in row.facts)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Protocol {scores.protocol_id}, {len(scores.clips)} clips. {_footnote(scores)}", ""])


def checkpoint_table(scores: Mapping[int, Scores]) -> str:
    """Scores of a run's checkpoints in Markdown, a row a step.

    Raises:
        UserError: protocols differ.
    """
    first = next(iter(scores.values()))
    require_same_protocol([one.protocol for one in scores.values()])
    heads = ["Step", *(f"PCK@{key} ↑ [95 %]" for key in first.pck), "Fréchet ↓", "PSNR ↑"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for step, one in scores.items():
        shares = [f"{value} [{interval}]" for value, interval in _pck_cells(one.pck)]
        lines.append("| " + " | ".join([f"{step:,}", *shares, f"{one.frechet:.3g}", f"{one.psnr_db:.1f} dB"]) + " |")
    return "\n".join([*lines, "", f"Protocol {first.protocol_id}, {len(first.clips)} clips."])


def latex_table(arms: Sequence[ArmResult], floor: ArmResult | None = None, ceiling: ArmResult | None = None) -> str:
    """The table of arms for LaTeX (needs booktabs), with its protocol's id.

    Raises:
        UserError: protocols differ.
    """
    beside = [arm for arm in (floor, ceiling) if arm]
    require_same_protocol([arm.scores.protocol for arm in [*beside, *arms]])
    rows, scores = table_rows(arms, floor, ceiling), arms[0].scores
    heads = ["Arm", *(f"PCK@{key} ↑" for key in scores.pck), *(head for head, _ in rows[0].facts)]
    lines = [f"\\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}", "\\toprule", _latex_row(heads), "\\midrule"]
    lines += [
        _latex_row([row.name, *(value for value, _ in row.pck), *(cell for _, cell in row.facts)]) for row in rows
    ]
    lines += ["\\bottomrule", "\\end{tabular}", f"% Protocol {scores.protocol_id}, {len(scores.clips)} clips."]
    return "\n".join([*lines, f"% {_footnote(scores)}", ""])


def _latex_row(cells: Sequence[str]) -> str:
    special = {"↑": "$\\uparrow$", "↓": "$\\downarrow$", "\N{EN DASH}": "--", "é": "\\'e"}
    special |= {character: f"\\{character}" for character in "%&_#"}
    return " & ".join("".join(special.get(character, character) for character in cell) for cell in cells) + " \\\\"


def _footnote(scores: Scores) -> str:
    if math.isnan(scores.frechet_floor):
        return "Too few clips for a real-against-real Fréchet floor."
    halves = " and ".join(str(count) for count in scores.frechet_floor_clips)
    return f"* One half of the true clips against the other ({halves} clips)."


def _arm_row(arm: ArmResult, role: str) -> TableRow:
    scores = arm.scores
    facts = [
        ("Joint error ↓", percent(scores.error_diagonal)),
        ("Fréchet ↓", f"{scores.frechet:.3g}"),
        ("PSNR ↑", f"{scores.psnr_db:.1f} dB"),
        ("Steps", _count(arm.steps)),
        ("Training", DASH if arm.training_seconds is None else f"{arm.training_seconds:,.0f} s"),
        ("Parameters", _count(arm.parameters)),
    ]
    return TableRow(arm.name, role, _pck_cells(scores.pck), facts)


def _pck_cells(pck: dict[str, Estimate]) -> list[tuple[str, str]]:
    return [(percent(share.value), percent_interval(share)) for share in pck.values()]


def _count(number: int | None) -> str:
    return DASH if number is None else f"{number:,}"
