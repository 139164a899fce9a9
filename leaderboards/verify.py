"""Does a record agree with itself? Everything that can be checked without the model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from leaderboards.cells import NONE, Cells
from leaderboards.changed import before_tried, corruption_rules
from leaderboards.distances import CURVE, curve_csv
from leaderboards.errors import RecordError
from leaderboards.explained_rules import explained_rules
from leaderboards.files import is_temporary, list_folder, read_bytes
from leaderboards.manifest import Parameter, explain
from leaderboards.near import NEAR, near_before
from leaderboards.radius import radius_rules
from leaderboards.summary import Summary
from leaderboards.verdicts import CLEAN_STEP, Verdict

if TYPE_CHECKING:
    from leaderboards.store import RunStore

Check = Callable[[], list[str]]
"""Gives one line for each problem."""
_LIMITS = ("max_queries", "seconds")
_MOST = 2**53
"""No limit of a protocol is larger; a stranger's may not fit into a number."""
MAX_SUMMARY_BYTES = 16 << 20


def verify_bytes(store: RunStore) -> list[str]:
    """Check a run's files against each other, and its rows against the rules.

    Shards are whole, of this run and about its samples; the rows obey the verdicts' rules; no
    sample is both certified and broken; the summary is what the shards give, hashes included.

    Returns:
        One line for each problem; none if all is well.
    """
    store = store.snapshot()
    try:
        problems = stray_folders(store)
        rows = {step: store.cells(step) for step in store.steps}
        for check in (*row_checks(store, rows), *file_checks(store, store.read_steps())):
            problems += check()
    except RecordError as error:
        return [str(error)]
    return problems


def row_checks(store: RunStore, rows: dict[str, Cells]) -> tuple[Check, ...]:
    """Checks of rows against the rules and each other; one may raise RecordError.

    Args:
        store: The run.
        rows: Of every step; of a damaged record, those that can be read.
    """
    of_all = store.manifest.protocol.corruption is not None
    return (
        *(partial(_row_problems, store, step, rows) for step in rows),
        lambda: _problems_across_steps(rows, of_all),
        lambda: _queries_problems(store, rows),
    )


def file_checks(store: RunStore, frames: dict[str, pd.DataFrame]) -> tuple[Check, ...]:
    """Checks of the other files against the rows, which have to be whole."""
    return (lambda: _summary_problems(store), lambda: _curve_problems(store, frames))


def stray_folders(store: RunStore) -> list[str]:
    """Folders of shards that belong to no step."""
    shards = store.folder / "shards"
    found = [p for p in list_folder(store.folder, shards) if not is_temporary(p)]
    return [f"{p} belongs to no step of this run" for p in found if p.name not in store.steps]


def _row_problems(store: RunStore, step: str, steps: dict[str, Cells]) -> list[str]:
    rows, protocol = steps[step], store.manifest.protocol
    settings = next((s.parameters for s in protocol.steps if s.name == step), {})
    rules: dict[str, Any] = {}
    if protocol.explanation is None:
        rules |= _prediction_rules(store, step, rows, settings)
        if NEAR in settings:
            rules |= _near_rules(store, step, rows, settings)
    else:
        rules |= explained_rules(
            rows.frame,
            steps[CLEAN_STEP].frame,
            store.kind(step),
            settings,
            protocol.explanation,
            protocol.threat,
        )
    if protocol.corruption is not None and step != CLEAN_STEP:
        severities = len(protocol.corruption.severities)
        rules |= corruption_rules(rows.frame, steps[CLEAN_STEP].frame, severities)
    if store.kind(step) != "certificate":
        margin = rows.number("margin")
        rules["the margin's sign and the prediction do not fit"] = (
            (margin < 0) & ~rows.misses | (margin > 0) & rows.misses
        ) & ~rows.says(Verdict.ERROR)
    found = {problem: np.flatnonzero(bad) for problem, bad in rules.items()}
    return [
        f"step {step}, sample {rows.ids[bad[0]]}: {problem}"
        + (f" (and {bad.size - 1} more)" if bad.size > 1 else "")
        for problem, bad in found.items()
        if bad.size
    ]


def _prediction_rules(
    store: RunStore, step: str, rows: Cells, settings: dict[str, Parameter]
) -> dict[str, Any]:
    broken, wrong = rows.says(Verdict.BROKEN), rows.says(Verdict.WRONG)
    margin, eps = rows.number("margin"), store.manifest.protocol.threat.eps
    rules: dict[str, Any] = {
        "broken, but its margin is positive": broken & ~(margin <= 0),
        "broken, but its float64 margin is positive": broken & (rows.number("margin64") > 0),
        "broken, but the distance is not within eps": broken & ~(rows.number("distance") <= eps),
        "broken, but the prediction is the label": broken & ~rows.misses,
    }
    if store.manifest.protocol.corruption is None:
        rules |= _distance_rules(rows, settings, eps)
    steps, restarts = settings.get("steps"), settings.get("restarts")
    if isinstance(steps, int) and isinstance(restarts, int) and "queries" not in settings:
        targets = settings.get("targets")
        restarts *= max(1, targets) if isinstance(targets, int) else 1
        passes = min(restarts * (steps + 1), _MOST)
        rules |= {
            "found after the last step": rows.number("iteration") > min(steps, _MOST),
            "found after the last restart": rows.number("restart") >= min(restarts, _MOST),
            "more passes than the protocol has": rows.number("forwards") > passes,
        }
        if not any(name in settings for name in (*_LIMITS, NEAR)):
            rules["not looked at"] = rows.number("forwards") < 1
    if store.kind(step) == "certificate" and "method" in settings:
        rules |= _certificate_rules(rows, eps)
    else:
        rules |= radius_rules(rows.frame, settings, store.manifest.protocol.threat)
    if store.kind(step) == CLEAN_STEP:
        rules |= {
            "wrong, but the margin is positive": wrong & ~(margin <= 0),
            "misclassified, but not wrong": rows.misses & ~wrong & ~rows.says(Verdict.ERROR),
        }
    return rules


def _near_rules(
    store: RunStore, step: str, rows: Cells, settings: dict[str, Parameter]
) -> dict[str, Any]:
    info = next(each for each in store.manifest.protocol.steps if each.name == step)
    tried, near = rows.number("forwards") > 0, np.isin(rows.ids, near_before(store, info))
    rules = {"looked at, but no attack before came near to break it": tried & ~near}
    if not any(name in settings for name in _LIMITS):
        left = ~tried & near & ~rows.says(Verdict.ERROR)
        rules["not looked at, but an attack before came near"] = left
    return rules


def _distance_rules(rows: Cells, settings: dict[str, Parameter], eps: float) -> dict[str, Any]:
    """Of examples that do not break their sample: those beyond eps, of a search for the nearest."""
    distance = rows.number("distance")
    apart = ~np.isnan(distance) & ~rows.says(Verdict.BROKEN)
    fair = (distance > eps) & (settings.get("minimal") is True)
    wrong = rows.misses & (rows.number("margin") <= 0) & ~(rows.number("margin64") > 0)
    return {
        "a distance, but it is not broken": apart & ~fair,
        "an example beyond eps, but it is classified rightly": apart & fair & ~wrong,
    }


def _certificate_rules(rows: Cells, eps: float) -> dict[str, Any]:
    proved, radius = rows.says(Verdict.CERTIFIED), rows.number("radius")
    left = (rows.verdict == NONE) & np.isnan(radius)
    return {
        "certified, but its bound is not positive": proved & ~(rows.number("bound") > 0),
        "certified, but by no method": proved & rows.frame["method"].isna(),
        "certified, but its radius is below eps": proved & (radius < eps),
        "its radius reaches eps, but it is not certified": ~proved & (radius >= eps),
        "left open without a reason": left & (rows.reason == NONE),
    }


def _problems_across_steps(steps: dict[str, Cells], of_all: bool) -> list[str]:
    """Problems between steps; `of_all`: every step runs on what is wrong in `clean`, too."""
    clean = steps[CLEAN_STEP]
    index, label = pd.Index(clean.ids), clean.number("label")
    correct = clean.ids[(clean.verdict == NONE) | of_all]
    problems = []
    for step, rows in steps.items():
        place = index.get_indexer(pd.Index(rows.ids))
        known = place >= 0
        unfit = rows.ids[~np.isin(rows.ids, correct)]
        if unfit.size and step != CLEAN_STEP:
            problems.append(f"step {step} ran on sample {unfit[0]}, which clean left no way to")
        other = label[place[known]] != rows.number("label")[known]
        if other.any():
            sample = rows.ids[known][other][0]
            problems.append(f"step {step} has another label for sample {sample}")
    return problems


def _curve_problems(store: RunStore, frames: dict[str, pd.DataFrame]) -> list[str]:
    path = store.folder / CURVE
    if not path.exists():
        return []
    rebuilt = curve_csv(store.manifest, frames)
    there = read_bytes(store.folder, path, MAX_SUMMARY_BYTES)
    return [] if there == rebuilt else [f"{path} is not what the shards give"]


def _queries_problems(store: RunStore, steps: dict[str, Cells]) -> list[str]:
    """Samples that the attacks so far asked about more often than a step's budget allows."""
    problems: list[str] = []
    samples = pd.Index(store.manifest.data.sample_ids)
    spent = np.zeros(len(samples))
    for step in store.manifest.protocol.steps:
        if step.kind != "attack":
            continue
        rows = steps[step.name]
        spent[samples.get_indexer(pd.Index(rows.ids))] += rows.number("forwards")
        most = step.parameters.get("max_queries")
        if isinstance(most, int) and (over := samples[spent > min(most, _MOST)]).size:
            problems.append(
                f"step {step.name}, sample {over[0]}: more passes than the {most} of max_queries"
            )
    return problems


def _summary_problems(store: RunStore) -> list[str]:
    path = store.folder / "summary.json"
    rebuilt = store.summary()
    if not path.exists():
        return [f"{path} is missing"] if rebuilt.complete else []
    try:
        written = Summary.model_validate_json(read_bytes(store.folder, path, MAX_SUMMARY_BYTES))
    except ValidationError as error:
        return [f"{path}: {explain(error)}"]
    rebuilt = rebuilt.model_copy(update=_of_then(written, rebuilt))
    return [
        f"{path}: {name} is not what the shards give"
        for name in Summary.model_fields
        if getattr(written, name) != getattr(rebuilt, name)
    ]


def _of_then(written: Summary, rebuilt: Summary) -> dict[str, Any]:
    """What summaries said otherwise when they had fewer fields, as one that lacks them has it."""
    steps = {step.name: step.model_fields_set for step in written.steps}
    empty = {"queries": None, "knowledge": None, "untried": 0}
    then: dict[str, Any] = {
        "steps": tuple(
            s.model_copy(update={k: v for k, v in empty.items() if k not in steps.get(s.name, {k})})
            for s in rebuilt.steps
        )
    }
    if "diagnostics_seconds" not in written.cost.model_fields_set:
        then["cost"] = rebuilt.cost.model_copy(update={"diagnostics_seconds": None})
    old, new = written.transformation, rebuilt.transformation
    if old and new and all(family.tried is None for family in old.families):
        clean = rebuilt.clean_accuracy if rebuilt.complete else None
        then["transformation"] = before_tried(new, None if clean is None else clean.k)
    return then
