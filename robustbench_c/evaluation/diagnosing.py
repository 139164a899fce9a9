"""Signs that a run's attacks failed, measured on its model and written beside its shards."""

from __future__ import annotations

import time
from typing import Literal

from torch import Tensor

from attacks.diagnostics import Flag, diagnose
from leaderboards.diagnostics import (
    DIAGNOSTICS_SCHEMA,
    Diagnostics,
    Measured,
    can_be_diagnosed,
    chosen,
    read_diagnostics,
    red_flags,
    write_diagnostics,
)
from leaderboards.settle import sample_verdicts
from leaderboards.verdicts import CLEAN_STEP
from robustbench_c.evaluation.sharing import once
from robustbench_c.evaluation.task import Task


def diagnose_run(task: Task) -> None:
    """Measure and write `diagnostics.json`, unless it is there or the run is not of that kind."""
    store = task.store
    if can_be_diagnosed(store.manifest.protocol):
        once(
            task.leases,
            "diagnostics",
            lambda: read_diagnostics(store) is not None,
            lambda: write_diagnostics(store, measure(task)),
        )


def measure(task: Task, probes: Literal[1, 2] = DIAGNOSTICS_SCHEMA) -> Diagnostics:
    """Look at the first samples that are right; the same model gives the same, but for the time.

    Args:
        task: The run.
        probes: Their version; see `Diagnostics.schema_version`.
    """
    work, started = task.classifier.work, time.perf_counter()
    before = work.forwards, work.backwards
    ids = chosen(task.store.read_step(CLEAN_STEP))
    place = task.places(ids).to(task.x.device)
    found = diagnose(
        task.classifier,
        task.x[place],
        task.y[place],
        task.data.ids[place.cpu()],
        task.threat,
        task.seed,
        samples=None,
    )
    return Diagnostics(
        schema_version=probes,
        identity=task.store.manifest.identity(),
        looked_at=tuple(ids.tolist()),
        measured=_measured(found.ids, found.at_first if probes == 1 else found.flags),
        forwards=work.forwards - before[0],
        backwards=work.backwards - before[1],
        seconds=time.perf_counter() - started,
    )


def _measured(ids: Tensor, flags: tuple[Flag, ...]) -> tuple[Measured, ...]:
    return tuple(
        Measured(
            name=flag.name,
            meaning=flag.sign.meaning,
            about=flag.sign.about,
            limit=flag.sign.limit,
            held=None if flag.rows is None else tuple(ids[flag.rows].tolist()),
            value=flag.value,
        )
        for flag in flags
    )


def differences(task: Task, same_machine: bool) -> list[str]:
    """Measure again, and say where a run's diagnostics are not what its model gives.

    Other machines round otherwise, which can move single samples: there the red flags alone are
    compared.
    """
    store = task.store
    recorded = read_diagnostics(store)
    if recorded is None:
        return []
    again = measure(task, recorded.schema_version)
    old, new = ({sign.name: sign for sign in d.measured} for d in (recorded, again))
    if same_machine:
        names = [name for name in new | old if old.get(name) != new.get(name)]
        return [f"diagnostics: {name} is not what the model gives" for name in names]
    frames = {step: store.read_step(step) for step in store.steps}
    verdicts = sample_verdicts(frames, store.manifest.data.sample_ids)
    steps = store.manifest.protocol.steps
    red, now = ({flag.name for flag in red_flags(d, verdicts, steps)} for d in (recorded, again))
    limits = [name for name in new | old if not _same_sign(old.get(name), new.get(name))]
    return [
        f"diagnostics: {name} is not what the model gives"
        for name in dict.fromkeys([*limits, *sorted(red ^ now)])
    ]


def _same_sign(one: Measured | None, other: Measured | None) -> bool:
    """Whether two measurements are of the same sign, with the same limit."""
    if one is None or other is None:
        return False
    return (one.about, one.limit, one.meaning) == (other.about, other.limit, other.meaning)
