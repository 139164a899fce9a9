"""Texts of strangers inside Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from leaderboards.errors import one_line

_PLAIN = " -,()%"


def inert(text: str, limit: int = 100) -> str:
    """Return a text as inline code that can neither mark up, link, mention nor end a table cell.

    Every character that could mean something is written as an entity, which Markdown shows and
    never interprets.
    """
    shown = one_line(text, limit)
    return (
        f"<code>{''.join(c if c.isalnum() or c in ' -' else f'&#{ord(c)};' for c in shown)}</code>"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Return a table; `numbers` are the places of columns to align at the right."""
    rule = ["---:" if i in numbers else "---" for i in range(len(header))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *rows))
