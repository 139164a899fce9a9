"""A snippet for a model card: `model-index` metadata as Hugging Face reads it, and a section.

The metadata are written as JSON values, which are YAML as well: names of strangers stay strings.
Format: the model card specification of Hugging Face Hub (`model-index`, `results`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from leaderboards.board_columns import COLUMNS, shown_columns
from leaderboards.boards import Board, Row, boards_of
from leaderboards.entries import Entry
from leaderboards.errors import RecordError, one_line
from leaderboards.export import cell
from leaderboards.markdown import inert, table
from leaderboards.reproduction import reproduction

_TYPES = {
    "clean": "accuracy",
    "robust": "robust_accuracy",
    "certified": "certified_accuracy",
    "unbent": "explanation_robustness",
    "explained": "certified_explanation_robustness",
}
"""The rates that become metrics, and their type there."""
_ATTACKED = ("robust", "unbent")
"""Those that are as good as the attacks."""
_SHOWN = ("clean", "robust", "certified", "unbent", "explained", "gap", "n")


def model_card(entries: Sequence[Entry]) -> str:
    """Return the head and a section of a model card, as Markdown.

    Args:
        entries: Complete runs of one model.

    Raises:
        RecordError: Runs of different models, or one that is not complete.
    """
    models = {entry.manifest.model.sha256: entry.manifest.model.name for entry in entries}
    if len(models) > 1:
        raise RecordError(f"runs of {len(models)} models: {', '.join(models.values())}; give one's")
    for entry in entries:
        if not entry.summary.complete:
            raise RecordError(f"{entry.folder} is not complete: the same command goes on with it")
    boards = boards_of(entries)
    rows = [(board, row) for board in boards for row in board.rows]
    return "".join([*_head(rows), "\n## Robustness\n\n", *_sections(rows)])


def _head(rows: list[tuple[Board, Row]]) -> Iterator[str]:
    name = rows[0][1].entry.manifest.model.name
    yield f"---\nmodel-index:\n- name: {_yaml(name)}\n  results:\n"
    for board, row in rows:
        data = board.data
        task = "image-classification" if len(data.shape) == 3 else "tabular-classification"
        yield f"  - task:\n      type: {_yaml(task)}\n"
        yield f"    dataset:\n      type: {_yaml(data.name)}\n      name: {_yaml(data.name)}\n"
        yield f"      split: {_yaml(data.split)}\n    metrics:\n"
        for column in COLUMNS:
            value = column.value(row)
            if column.key in _ATTACKED and row.entry.summary.reliable is False:
                continue  # attacks that failed: the section says so, a lone number could not
            if column.key in _TYPES and isinstance(value, float):
                told = f"{column.title} ({board.title})"
                yield f"    - type: {_yaml(_TYPES[column.key])}\n      value: {value!r}\n"
                yield f"      name: {_yaml(told)}\n"
    yield "---\n"


def _sections(rows: list[tuple[Board, Row]]) -> Iterator[str]:
    yield "Measured by robustbench-c, with exact 95% intervals. The true robust accuracy lies "
    yield "between *certified* and *robust*.\n\n"
    for board, row in rows:
        columns = [c for c in shown_columns(board) if c.key in _SHOWN]
        yield f"**{inert(board.title, 300)}**\n\n"
        yield table([c.title for c in columns], [[cell(c, row) for c in columns]])
        if row.entry.summary.reliable is False:
            flags = ", ".join(flag.name for flag in row.entry.summary.flags or ())
            yield f"\nThe robust accuracy is unreliable: {inert(flags, 300)}.\n"
        manifest = row.entry.manifest
        again = reproduction(manifest)
        yield f"\nModel `{manifest.model.sha256}`, protocol `{manifest.protocol_sha256}`.\n"
        yield f"\n    {one_line(again.command, 2000)}\n\n"


def _yaml(text: str) -> str:
    return json.dumps(one_line(text, 300))
