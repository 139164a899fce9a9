"""The console that tables are printed on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TypeVar

from rich.console import Console

T = TypeVar("T")

_MOST = 20
"""Lines of a kind that are shown."""


def wide_console() -> Console:
    """Standard output, for the texts of strangers; wide where it is no terminal."""
    width = None if sys.stdout.isatty() else 200
    return Console(width=width, markup=False, emoji=False, highlight=False)


def few(items: Sequence[T], what: str) -> tuple[Sequence[T], list[str]]:
    """Return the first items, and a line that says how many more there are, if any.

    Args:
        items: As many as strangers like.
        what: Names them.
    """
    rest = len(items) - _MOST
    return items[:_MOST], [f"and {rest} more {what}"] if rest > 0 else []
