"""Stored adversarial examples against the rows they belong to; needs no model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from leaderboards.errors import RecordError
from leaderboards.examples import FOLDER, StoredExamples, example_path, read_examples
from leaderboards.files import is_temporary, list_folder
from leaderboards.manifest import DataInfo, ThreatInfo
from leaderboards.sample_ids import parse_ids
from leaderboards.store import RunStore
from leaderboards.validation.findings import Finding
from leaderboards.verdicts import Verdict

_TOLERANCE = 1e-9
"""Relative: sums can be split differently on another machine."""
_AT_ONCE = 1 << 22
"""Values that are looked at together."""
_MADE_AGAIN = "run it again with --save-adversarial; this one shows no example that holds"


def check_examples(store: RunStore, tables: dict[Path, pd.DataFrame]) -> Iterator[Finding]:
    """Yield what is wrong with the examples of a run that keeps them.

    Args:
        store: The run.
        tables: The rows of each shard that can be read.
    """
    steps = {step.name: step for step in store.manifest.protocol.steps}
    expected = set()
    for path, rows in tables.items():
        step = path.parent.name
        place = example_path(store.folder, step, path.name)
        if step not in steps or not place.parent.is_dir():
            continue
        expected.add(place)
        held = rows["verdict"].isin([Verdict.BROKEN]) | (
            rows["distance"].notna() & steps[step].minimal
        )
        name = str(place.relative_to(store.folder))
        if not place.exists():
            if held.any():
                yield Finding("error", name, f"missing: {int(held.sum())} examples", _MADE_AGAIN)
            continue
        try:
            examples = read_examples(store.folder, place, store.manifest.data.shape)
            problems = list(_problems(store, rows[held], examples))
        except RecordError as error:
            problems = [str(error)]
        for problem in problems:
            yield Finding("error", name, problem, _MADE_AGAIN)
    yield from _strays(store, expected)


def _strays(store: RunStore, expected: set[Path]) -> Iterator[Finding]:
    for folder in list_folder(store.folder, store.folder / FOLDER):
        if folder.name not in store.steps or not folder.is_dir():
            place = str(folder.relative_to(store.folder))
            yield Finding("error", place, "belongs to no step of this run", "remove it")
            continue
        for path in list_folder(store.folder, folder):
            if path not in expected and not is_temporary(path):
                place = str(path.relative_to(store.folder))
                yield Finding("warning", place, "belongs to no shard, not looked at", "remove it")


def _problems(store: RunStore, rows: pd.DataFrame, examples: StoredExamples) -> Iterator[str]:
    """What does not fit the rows of the samples that should have an example."""
    ids = np.asarray(examples.ids)
    if sorted(ids.tolist()) != sorted(rows["sample_id"].tolist()):
        yield "its ids are not those of the shard's examples"
        return
    told = rows.set_index("sample_id").loc[ids]
    distance = told["distance"].to_numpy(np.float64)
    threat, data = store.manifest.protocol.threat, store.manifest.data
    fixed = parse_ids(threat.immutable) if threat.immutable else np.empty(0, dtype=np.int64)
    size = int(np.prod(data.shape, dtype=np.int64))
    if fixed.size and fixed[-1] >= size:
        yield "the threat model fixes a feature outside of the sample"
        return
    scale = _scale(threat, data)
    found: dict[str, list[Any]] = {}
    per_part = max(1, _AT_ONCE // max(size, 1))
    for start in range(0, ids.size, per_part):
        part = slice(start, start + per_part)
        clean = examples.clean[part].reshape(-1, size).astype(np.float64)
        moved = examples.adversarial[part].reshape(-1, size).astype(np.float64)
        wrong: dict[str, Any] = {"is not finite": ~(np.isfinite(clean) & np.isfinite(moved)).all(1)}
        for what, values in (("example", moved), ("clean sample", clean)):
            inside = (values >= data.box_lower[0]) & (values <= data.box_upper[1])
            wrong[f"its {what} leaves the input box"] = ~inside.all(1)
        wrong["changes a feature that may not change"] = (moved[:, fixed] != clean[:, fixed]).any(1)
        if scale is not None:
            norm = _norms(moved - clean, threat.norm) / scale
            want = distance[part]
            wrong["is not as far from its sample as its row says"] = ~(
                np.abs(norm - want) <= _TOLERANCE * np.maximum(want, 1e-300)
            )
            beyond = norm > threat.eps * (1 + _TOLERANCE)
            broken = told["verdict"].isin([Verdict.BROKEN]).to_numpy()[part]
            wrong["is beyond eps, yet its sample counts as broken"] = beyond & broken
        for problem, bad in wrong.items():
            found.setdefault(problem, []).append(bad)
    for problem, parts in found.items():
        bad = ids[np.concatenate(parts)]
        if bad.size:
            more = f" (and {bad.size - 1} more)" if bad.size > 1 else ""
            yield f"sample {bad[0]}: {problem}{more}"


def _scale(threat: ThreatInfo, data: DataInfo) -> float | None:
    """What eps is measured in; None where a record does not say it feature by feature."""
    if threat.eps_unit == "input" or threat.norm == "l0":
        return 1.0
    if data.box_lower[0] == data.box_lower[1] and data.box_upper[0] == data.box_upper[1]:
        span = data.box_upper[0] - data.box_lower[0]
        return span if span > 0 else 1.0
    return None


def _norms(offset: npt.NDArray[np.float64], norm: str) -> Any:
    """Norm of each row, (n,), float64."""
    size: Any = np.abs(offset)
    if norm == "l0":
        return (size > 0).sum(1).astype(np.float64)
    if norm == "linf":
        return size.max(1, initial=0.0)
    return np.sqrt((size**2).sum(1)) if norm == "l2" else size.sum(1)
