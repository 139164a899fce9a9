"""The console that tables are printed on."""

from __future__ import annotations

import sys

from rich.console import Console


def wide_console() -> Console:
    """Standard output, for the texts of strangers; wide where it is no terminal."""
    width = None if sys.stdout.isatty() else 200
    return Console(width=width, markup=False, emoji=False, highlight=False)
