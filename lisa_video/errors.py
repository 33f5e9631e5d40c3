"""The one exception for users' mistakes: it says what is wrong, where, and how to mend it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any


class UserError(Exception):
    """A mistake in input, settings or environment that the user can mend.

    Commands print it as one message without a traceback and exit with status 2. Programming errors are never
    turned into this type.

    Args:
        what: the rule that was broken, with the numbers or names in hand.
        where: the file, key or clip concerned, if there is one.
        remedy: what to do about it, as an instruction.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, remedy: str) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        prefix = f"{where}: " if where is not None else ""
        super().__init__(f"{prefix}{what.rstrip('.')}. Remedy: {remedy.rstrip('.')}.")

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes send exceptions as pickles, which by default would be made again from the message alone.
        return partial(type(self), where=self.where, remedy=self.remedy), (self.what,)
