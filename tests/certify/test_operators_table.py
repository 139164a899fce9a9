"""docs/operators.md lists the operators that have a rule, no more and no fewer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import certify.bind
import certify.crown  # noqa: F401  # registers the rules
from certify.lines import LINES
from certify.maps import MAPS
from certify.propagate import RULES
from certify.steps import STEPS

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"
START, END = "<!-- operators -->\n", "<!-- /operators -->\n"


def name(op: Any) -> str:
    text = str(op)
    if text.startswith("aten"):
        return text
    return f"slopes.{op.__name__}" if op.__module__ == "certify.slopes" else op.__name__


def table() -> str:
    rows = ["| operator | affine (every domain) | intervals | linear domain |", "|---|---|---|---|"]
    linear = LINES.keys() | STEPS.keys()
    for op in sorted({name(op) for op in MAPS.keys() | RULES.keys()}):
        ours = [{name(key) for key in registry} for registry in (MAPS, RULES, linear)]
        marks = ["yes" if op in names else "" for names in ours]
        if marks[0]:
            marks[1:] = [mark or "as the affine map" for mark in marks[1:]]
        marks[2] = marks[2] or "cut: its interval"
        rows.append(f"| `{op}` | {marks[0]} | {marks[1]} | {marks[2]} |")
    return "\n".join(rows) + "\n"


def test_the_page_lists_what_has_a_rule() -> None:
    before, rest = PAGE.read_text().split(START)
    listed, after = rest.split(END)
    if os.environ.get("WRITE_OPERATORS"):
        PAGE.write_text(before + START + table() + END + after)
    else:
        assert listed == table(), "WRITE_OPERATORS=1 pytest writes the table anew"
