"""What summary.json says against itself and the manifest: true or not, it has to be possible."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from leaderboards.errors import RecordError
from leaderboards.files import read_bytes
from leaderboards.manifest import Manifest, Record
from leaderboards.rates import Rate
from leaderboards.store import SUMMARY, RunStore
from leaderboards.strict_json import check_json
from leaderboards.summary import SUMMARY_SCHEMA, Summary
from leaderboards.validation.findings import Finding
from leaderboards.verify import MAX_SUMMARY_BYTES

REBUILD = "nothing is taken from it; the same robust-eval command writes it again"
MOST_COMPLAINTS = 20
_TOLERANCE = 1e-9


def read_told(store: RunStore) -> tuple[Summary | None, list[Finding]]:
    """Read summary.json as it is; None where it is not there or not readable."""
    path = store.folder / SUMMARY
    if not path.exists():
        return None, []
    try:
        data = read_bytes(store.folder, path, MAX_SUMMARY_BYTES)
        check_json(data)
        return Summary.model_validate_json(data), []
    except ValidationError as error:
        return None, complaints(error, SUMMARY, SUMMARY_SCHEMA)
    except RecordError as error:
        return None, [Finding("error", SUMMARY, str(error), REBUILD)]


def complaints(error: ValidationError, place: str, schema: int) -> list[Finding]:
    """Each complaint of pydantic as a finding."""
    found: list[Finding] = []
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(str(part) for part in each["loc"])
        if each["loc"] == ("schema_version",):
            problem = f"written in a format this version cannot read (it reads {schema})"
            return [Finding("error", f"{place}: schema_version", problem, "update robustbench-c")]
        if len(found) < MOST_COMPLAINTS:
            found.append(Finding("error", f"{place}: {where}" if where else place, each["msg"]))
    return found


def check_told(told: Summary, manifest: Manifest) -> Iterator[Finding]:
    """Yield what cannot be, whatever the shards hold."""
    for name, mine in (
        ("run_id", manifest.run_id),
        ("identity", manifest.identity()),
        ("protocol_sha256", manifest.protocol_sha256),
        ("samples", manifest.data.samples),
    ):
        if (other := getattr(told, name)) != mine:
            yield _error(name, f"{other}, but the manifest gives {mine}")
    counted = sum(told.counts.model_dump().values())
    if counted != told.samples:
        yield _error("counts", f"add up to {counted}, but there are {told.samples} samples")
    if told.complete and told.counts.not_run:
        yield _error("complete", f"true, but {told.counts.not_run} samples are not run")
    for place, rate in _rates(told):
        right = Rate.of(rate.k, rate.n) if rate.k <= rate.n else None
        if right is None:
            yield _error(place, f"{rate.k} of {rate.n} samples")
            continue
        for name in ("value", "lower", "upper"):
            said, own = getattr(rate, name), getattr(right, name)
            if abs(said - own) > _TOLERANCE:
                problem = f"{said:.6g}, but {rate.k} of {rate.n} gives {own:.6g}"
                yield _error(f"{place}.{name}", problem)
    chain = ("certified_accuracy", "robust_accuracy", "clean_accuracy")
    for lower, upper in pairwise(chain):
        small, large = getattr(told, lower), getattr(told, upper)
        if small is not None and large is not None and small.value > large.value:
            problem = f"{lower} {small.value:.4%} is above {upper} {large.value:.4%}"
            yield _error(lower, problem)
    held = told.explanation
    if (
        held is not None
        and held.bent is not None
        and held.certified is not None
        and held.bent.k + held.certified.k > held.bent.n
    ):
        yield _error("explanation", "bent and certified are more than all samples")
    names = tuple(step.name for step in told.steps)
    steps = ("clean", *(step.name for step in manifest.protocol.steps))
    if names != steps:
        yield _error("steps", f"{', '.join(names)}, but the protocol has {', '.join(steps)}")
    for total in ("forwards", "backwards", "work"):
        summed = sum(getattr(step, total) for step in told.steps)
        if summed != getattr(told.cost, total):
            yield _error(f"cost.{total}", f"is not the sum over the steps, {summed}")


def _error(where: str, problem: str) -> Finding:
    return Finding("error", f"{SUMMARY}: {where}", problem, REBUILD)


def _rates(value: Any, place: str = "") -> Iterator[tuple[str, Rate]]:
    """Every rate in a record, with its place."""
    if isinstance(value, Rate):
        yield place, value
    elif isinstance(value, Record):
        for name in type(value).model_fields:
            yield from _rates(getattr(value, name), f"{place}.{name}" if place else name)
    elif isinstance(value, tuple):
        for i, each in enumerate(value):
            yield from _rates(each, f"{place}.{i}")
