"""The accounts as a table for people."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_tools.accounting import KINDS, Accounts


def print_accounts(accounts: Accounts) -> None:
    """Print what became of every second of video."""
    table = Table(title="What became of every second of video")
    table.add_column("what became of it", overflow="fold")
    for name in ("files", "clips", "time", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in accounts.rows:
        text = KINDS[row.kind] + (f": {row.detail}" if row.detail else "")
        if row.clips_breaking is not None and row.clips_breaking != row.clips:
            text += f" (broken by {row.clips_breaking} clips in all)"
        share = f"{row.seconds / accounts.seconds:.1%}" if accounts.seconds else ""
        table.add_row(escape(text), str(row.files), str(row.clips or ""), clock(row.seconds), share)
    table.add_section()
    table.add_row("all that was found", str(accounts.files), "", clock(accounts.seconds), "")
    Console().print(table)
    if accounts.files_of_unknown_length:
        print(f"{accounts.files_of_unknown_length} files could not be probed: their length is unknown, and counts as 0")
    if not any(row.kind == "kept" for row in accounts.rows):
        print("No clip was kept: the data set is empty.")


def clock(seconds: float) -> str:
    """Such as 1:02:03.4."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest // 10:02d}.{rest % 10}"
