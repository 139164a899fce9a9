"""docs/records.md names all there is to name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from record_makers import a_manifest

from leaderboards.columns import COLUMNS
from leaderboards.diagnostics import Diagnostics
from leaderboards.manifest import Manifest, Record
from leaderboards.summary import Summary
from leaderboards.verdicts import Verdict
from leaderboards.worklog import Event, Line

DOC = Path(__file__).parents[2] / "docs" / "records.md"


def _records(annotation: Any) -> list[type[Record]]:
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return [annotation]
    return [record for part in get_args(annotation) for record in _records(part)]


def _fields(record: type[Record]) -> set[str]:
    names = set(record.model_fields)
    for field in record.model_fields.values():
        for inner in _records(field.annotation):
            names |= _fields(inner)
    return names


def test_walk_reaches_the_innermost_fields() -> None:
    assert {"tiles", "eps", "parameters", "immutable"} <= _fields(Manifest)
    assert {"k", "content_sha256", "not_run"} <= _fields(Summary)


@pytest.mark.parametrize(
    "names",
    [
        {column.name for column in COLUMNS},
        _fields(Manifest),
        _fields(Summary),
        _fields(Diagnostics),
        {str(verdict) for verdict in Verdict},
        {*Line.model_fields, *get_args(Event)},
        set(a_manifest().identity_fields()),
    ],
)
def test_the_doc_names(names: set[str]) -> None:
    text = DOC.read_text()
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []
