"""Numbers in words, for the page."""

from __future__ import annotations

from data_tools.rules import RULES, Rule
from data_tools.settings import Limits

_UNITS = {rule.name: rule.unit for rule in RULES}


def counted(number: int, what: str) -> str:
    """Such as "1 clip" or "1,204 clips"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def as_number(value: float) -> str:
    """Three digits, and no more than are needed; what rounds to nothing at three decimals is 0."""
    if abs(value) < 0.0005:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def as_bytes(number: int) -> str:
    """Such as "3.4 GiB"."""
    size = float(number)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.3g} TiB"


def as_duration(seconds: float) -> str:
    """Such as "3 h 05 min", "4 min 10 s" or "8.2 s"."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def as_limits(limits: Limits | None) -> str:
    """Such as "at least 0.3", "1 to 2" or "off"."""
    if limits is None:
        return "off"
    if limits.min is None:
        return f"at most {limits.max:g}"
    if limits.max is None:
        return f"at least {limits.min:g}"
    return f"{limits.min:g}" if limits.min == limits.max else f"{limits.min:g} to {limits.max:g}"


def rule_title(name: str) -> str:
    """Name of a rule for people."""
    return name.replace("_", " ").replace("fps", "frame rate").capitalize()


def rule_unit(name: str) -> str:
    """What a rule's number counts."""
    return _UNITS[name]


def rule_meaning(rule: Rule) -> str:
    """What a rule measures: the first line of its documentation, as far as its reason."""
    return (rule.measure.__doc__ or "").strip().partition("\n")[0].partition(":")[0].rstrip(".")
