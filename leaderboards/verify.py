"""Does a record agree with itself? Everything that can be checked without the model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import ValidationError

from leaderboards.changed import before_tried, corruption_rules
from leaderboards.distances import CURVE, curve_csv
from leaderboards.errors import RecordError
from leaderboards.explained_rules import explained_rules
from leaderboards.files import is_temporary, list_folder, read_bytes
from leaderboards.manifest import Parameter, explain
from leaderboards.near import NEAR, near_before
from leaderboards.radius import radius_rules
from leaderboards.summary import Summary, summarise
from leaderboards.verdicts import CLEAN_STEP, Verdict, reason_of

if TYPE_CHECKING:
    from leaderboards.store import RunStore

Check = Callable[[], list[str]]
"""Gives one line for each problem."""
_LIMITS = ("max_queries", "seconds")
MAX_SUMMARY_BYTES = 16 << 20


def verify_bytes(store: RunStore) -> list[str]:
    """Check a run's files against each other, and its rows against the rules.

    Shards are whole, of this run and about its samples; the rows obey the verdicts' rules; no
    sample is both certified and broken; the summary is what the shards give, hashes included.

    Returns:
        One line for each problem; none if all is well.
    """
    try:
        problems = stray_folders(store)
        frames = store.read_steps()
        for check in (*row_checks(store, frames), *file_checks(store, frames)):
            problems += check()
    except RecordError as error:
        return [str(error)]
    return problems


def row_checks(store: RunStore, frames: dict[str, pd.DataFrame]) -> tuple[Check, ...]:
    """Checks of rows against the rules and each other; one may raise RecordError.

    Args:
        store: The run.
        frames: The rows of every step; of a damaged record, those that can be read.
    """
    of_all = store.manifest.protocol.corruption is not None
    return (
        *(partial(_row_problems, store, step, frames) for step in frames),
        lambda: _problems_across_steps(frames, of_all),
        lambda: _queries_problems(store, frames),
    )


def file_checks(store: RunStore, frames: dict[str, pd.DataFrame]) -> tuple[Check, ...]:
    """Checks of the other files against the rows, which have to be whole."""
    return (lambda: _summary_problems(store), lambda: _curve_problems(store, frames))


def stray_folders(store: RunStore) -> list[str]:
    """Folders of shards that belong to no step."""
    shards = store.folder / "shards"
    found = [p for p in list_folder(store.folder, shards) if not is_temporary(p)]
    return [f"{p} belongs to no step of this run" for p in found if p.name not in store.steps]


def _row_problems(store: RunStore, step: str, frames: dict[str, pd.DataFrame]) -> list[str]:
    frame, protocol = frames[step], store.manifest.protocol
    settings = next((s.parameters for s in protocol.steps if s.name == step), {})
    if protocol.explanation is None:
        rules = _prediction_rules(store, step, frame, settings)
        if NEAR in settings:
            rules |= _near_rules(store, step, frame, settings)
    else:
        rules = explained_rules(
            frame,
            frames[CLEAN_STEP],
            store.kind(step),
            settings,
            protocol.explanation,
            protocol.threat,
        )
    if protocol.corruption is not None and step != CLEAN_STEP:
        severities = len(protocol.corruption.severities)
        rules |= corruption_rules(frame, frames[CLEAN_STEP], severities)
    if store.kind(step) != "certificate":
        misses = (frame["prediction"] != frame["label"]).fillna(False).astype(bool)
        rules["the margin's sign and the prediction do not fit"] = (
            (frame["margin"] < 0) & ~misses | (frame["margin"] > 0) & misses
        ) & ~frame["verdict"].isin([Verdict.ERROR])
    return [
        f"step {step}, sample {frame['sample_id'][bad].iloc[0]}: {problem}"
        + (f" (and {int(bad.sum()) - 1} more)" if bad.sum() > 1 else "")
        for problem, bad in rules.items()
        if bad.any()
    ]


def _prediction_rules(
    store: RunStore, step: str, frame: pd.DataFrame, settings: dict[str, Parameter]
) -> dict[str, pd.Series[bool]]:
    broken = frame["verdict"].isin([Verdict.BROKEN])
    wrong = frame["verdict"].isin([Verdict.WRONG])
    failed = frame["verdict"].isin([Verdict.ERROR])
    misses = (frame["prediction"] != frame["label"]).fillna(False).astype(bool)
    rules = {
        "broken, but its margin is positive": broken & ~(frame["margin"] <= 0),
        "broken, but its float64 margin is positive": broken & (frame["margin64"] > 0),
        "broken, but the distance is not within eps": broken
        & ~(frame["distance"] <= store.manifest.protocol.threat.eps),
        "broken, but the prediction is the label": broken & ~misses,
    }
    if store.manifest.protocol.corruption is None:
        rules |= _distance_rules(frame, settings, store.manifest.protocol.threat.eps)
    steps, restarts = settings.get("steps"), settings.get("restarts")
    if isinstance(steps, int) and isinstance(restarts, int) and "queries" not in settings:
        targets = settings.get("targets")
        restarts *= max(1, targets) if isinstance(targets, int) else 1
        rules |= {
            "found after the last step": (frame["iteration"] > steps).fillna(False).astype(bool),
            "found after the last restart": (frame["restart"] >= restarts)
            .fillna(False)
            .astype(bool),
            "more passes than the protocol has": frame["forwards"] > restarts * (steps + 1),
        }
        if not any(name in settings for name in (*_LIMITS, NEAR)):
            rules["not looked at"] = frame["forwards"] < 1
    if store.kind(step) == "certificate" and "method" in settings:
        rules |= _certificate_rules(frame, store.manifest.protocol.threat.eps)
    else:
        rules |= radius_rules(frame, settings, store.manifest.protocol.threat)
    if store.kind(step) == CLEAN_STEP:
        rules |= {
            "wrong, but the margin is positive": wrong & ~(frame["margin"] <= 0),
            "misclassified, but not wrong": misses & ~wrong & ~failed,
        }
    return rules


def _near_rules(
    store: RunStore, step: str, frame: pd.DataFrame, settings: dict[str, Parameter]
) -> dict[str, pd.Series[bool]]:
    info = next(each for each in store.manifest.protocol.steps if each.name == step)
    tried, near = frame["forwards"] > 0, frame["sample_id"].isin(near_before(store, info))
    failed = frame["verdict"].isin([Verdict.ERROR])
    rules = {"looked at, but no attack before came near to break it": tried & ~near}
    if not any(name in settings for name in _LIMITS):
        rules["not looked at, but an attack before came near"] = ~tried & near & ~failed
    return rules


def _distance_rules(
    frame: pd.DataFrame, settings: dict[str, Parameter], eps: float
) -> dict[str, pd.Series[bool]]:
    """Of examples that do not break their sample: those beyond eps, of a search for the nearest."""
    apart = frame["distance"].notna() & ~frame["verdict"].isin([Verdict.BROKEN])
    fair = (frame["distance"] > eps) & (settings.get("minimal") is True)
    misses = (frame["prediction"] != frame["label"]).fillna(False).astype(bool)
    wrong = misses & (frame["margin"] <= 0) & ~(frame["margin64"] > 0)
    return {
        "a distance, but it is not broken": apart & ~fair,
        "an example beyond eps, but it is classified rightly": apart & fair & ~wrong,
    }


def _certificate_rules(frame: pd.DataFrame, eps: float) -> dict[str, pd.Series[bool]]:
    proved = frame["verdict"].isin([Verdict.CERTIFIED])
    measured = frame["radius"].notna()
    silent = frame["detail"].map(reason_of, na_action="ignore").isna()
    return {
        "certified, but its bound is not positive": proved & ~(frame["bound"] > 0),
        "certified, but by no method": proved & frame["method"].isna(),
        "certified, but its radius is below eps": proved & (frame["radius"] < eps),
        "its radius reaches eps, but it is not certified": ~proved & (frame["radius"] >= eps),
        "left open without a reason": frame["verdict"].isna() & ~measured & silent,
    }


def _problems_across_steps(frames: dict[str, pd.DataFrame], of_all: bool) -> list[str]:
    """Problems between steps; `of_all`: every step runs on what is wrong in `clean`, too."""
    clean = frames[CLEAN_STEP].set_index("sample_id")
    correct = clean.index[clean["verdict"].isna() | of_all]
    problems = []
    for step, frame in frames.items():
        if step == CLEAN_STEP:
            continue
        ids = frame["sample_id"]
        if (unfit := ids[~ids.isin(correct)]).size:
            problems.append(
                f"step {step} ran on sample {unfit.iloc[0]}, which clean left no way to"
            )
        labels = clean["label"].reindex(ids).to_numpy()
        other = (labels != frame["label"].to_numpy()) & ids.isin(clean.index).to_numpy()
        if other.any():
            problems.append(f"step {step} has another label for sample {ids[other].iloc[0]}")
    return problems


def _curve_problems(store: RunStore, frames: dict[str, pd.DataFrame]) -> list[str]:
    path = store.folder / CURVE
    if not path.exists():
        return []
    rebuilt = curve_csv(store.manifest, frames)
    there = read_bytes(store.folder, path, MAX_SUMMARY_BYTES)
    return [] if there == rebuilt else [f"{path} is not what the shards give"]


def _queries_problems(store: RunStore, frames: dict[str, pd.DataFrame]) -> list[str]:
    """Samples that the attacks so far asked about more often than a step's budget allows."""
    problems, spent = [], pd.Series(dtype="int64")
    for step in store.manifest.protocol.steps:
        if step.kind != "attack":
            continue
        spent = spent.add(frames[step.name].set_index("sample_id")["forwards"], fill_value=0)
        most = step.parameters.get("max_queries")
        if isinstance(most, int) and (over := spent.index[spent > most]).size:
            problems.append(
                f"step {step.name}, sample {over[0]}: more passes than the {most} of max_queries"
            )
    return problems


def _summary_problems(store: RunStore) -> list[str]:
    path = store.folder / "summary.json"
    rebuilt: Summary = summarise(store)
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
    old, new = written.transformation, rebuilt.transformation
    if old and new and all(family.tried is None for family in old.families):
        clean = rebuilt.clean_accuracy if rebuilt.complete else None
        then["transformation"] = before_tried(new, None if clean is None else clean.k)
    return then
