"""A certificate on every sample that is open, shard by shard, written down as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from leaderboards.manifest import StepInfo
from leaderboards.sample_ids import Ids
from leaderboards.store import RunStore
from leaderboards.verdicts import Verdict
from robustbench_c.evaluation import artefacts, contradiction
from robustbench_c.evaluation.certificates import certify_places
from robustbench_c.evaluation.certifying import Certifier, Method
from robustbench_c.evaluation.protocol_steps import Proof
from robustbench_c.evaluation.radius import measure_places
from robustbench_c.evaluation.sharing import Report, work_off
from robustbench_c.evaluation.steps import Judged
from robustbench_c.evaluation.task import Task, found_before, right_ids, settled_before

_UNITS: dict[Method, int] = {
    "ibp": 16,
    "crown-ibp": 8,
    "crown": 4,
    "alpha-crown": 2,
    "complete": 1,
}
"""Units of a shard, by method: the dearer it is, the fewer."""
_GROUPS = 8
"""Shards, at least, where there are as many units."""
_RADII = 256
"""Samples that search their radii together."""


@dataclass(frozen=True)
class Unit:
    """Samples that are bounded together.

    Attributes:
        ids: Their ids, ascending.
        proof: The settings that hold for them.
    """

    ids: Ids
    proof: Proof


def plan(store: RunStore, step: StepInfo, settled: pd.DataFrame) -> list[Unit]:
    """Return what a certificate's step has to do, in the order of the ids.

    Bounds of one sample can differ in their last bits with the others that are bounded beside it.
    So its companions are always the same: units are cut, by id, from the whole set of samples
    that the steps before left to this one, and a unit is bounded as a whole. Neither the order of
    the data, nor shards, nor a resume has any influence on them.

    The samples are the open ones; of a step that audits, those that are broken, too, in units of
    their own and with the least work the method can do; of one that searches radii, all that
    are right.

    Args:
        store: The record.
        step: The step.
        settled: What the steps before it settled (`task.settled_before`).

    Raises:
        RecordError: The step's settings are not those of a certificate.
    """
    proof, right = Proof.of(step), right_ids(store)
    if proof.tolerance is not None:
        return [Unit(ids, proof) for ids in _cut(right, _RADII)]
    units = [Unit(ids, proof) for ids in _cut(np.setdiff1d(right, settled.index), proof.tile)]
    if proof.samples == "audit":
        broken = settled.index[settled["verdict"] == Verdict.BROKEN].to_numpy(dtype=np.int64)
        units += [Unit(ids, proof.least) for ids in _cut(broken, proof.tile)]
    return units


def _cut(ids: Ids, size: int) -> Iterator[Ids]:
    return (ids[start : start + size] for start in range(0, len(ids), size))


def prove_unit(task: Task, certifier: Certifier, unit: Unit, settled: pd.DataFrame) -> Judged:
    """Bound the samples of a unit; `settled` as for `plan`."""
    part, seed = task.places(unit.ids), task.seed
    if unit.proof.tolerance is None:
        return certify_places(task, certifier, unit.proof, part, seed)
    proved = settled[settled["verdict"] == Verdict.CERTIFIED]
    return measure_places(task, certifier, unit.proof, part, proved, seed)


def prove_samples(task: Task, step: StepInfo, certifier: Certifier) -> None:
    """Run a certificate on what is left to it and has no row yet.

    Raises:
        ContradictionError: It proves a sample that was broken; the evidence is on disk.
    """
    settled, found = settled_before(task.store, step.name), found_before(task.store, step.name)
    groups = _grouped(plan(task.store, step, settled), Proof.of(step))
    units_of = {int(i): units for ids, units in groups for i in ids}

    def work(ids: Ids, report: Report) -> None:
        parts: list[Judged] = []
        for unit in units_of[int(ids[0])]:
            new = np.isin(unit.ids, ids)
            if not new.any():
                continue
            judged = _some(prove_unit(task, certifier, unit, settled), new)
            parts.append(judged)
            contradicted = contradiction.contradicted(judged.rows, found)
            if contradicted.size:
                contradiction.save(task, step, judged.rows, found, contradicted, certifier)
                _write(task, step, parts)
                contradiction.stop(task.store.folder, contradicted)
            verdicts = pd.concat([part.rows["verdict"] for part in parts])
            report(len(verdicts), int(verdicts.isin([Verdict.CERTIFIED, Verdict.BROKEN]).sum()))
        _write(task, step, parts)

    shards = [ids for ids, _ in groups]
    work_off(task.store, task.leases, step.name, shards, work, task.progress)


def _grouped(units: list[Unit], proof: Proof) -> list[tuple[Ids, list[Unit]]]:
    """Units that make a shard together, with their ids."""
    most = 1 if proof.tolerance is not None else _UNITS[proof.method]
    size = max(1, min(most, len(units) // _GROUPS))
    groups = [units[start : start + size] for start in range(0, len(units), size)]
    return [(np.concatenate([unit.ids for unit in group]), group) for group in groups]


def _some(judged: Judged, rows: np.ndarray) -> Judged:
    """Some of the rows, bool (n,)."""
    mask = torch.from_numpy(rows).to(judged.broken.device)
    return Judged(
        judged.rows[rows].reset_index(drop=True), judged.broken[mask], judged.adversarial[mask]
    )


def _write(task: Task, step: StepInfo, parts: list[Judged]) -> None:
    """Write the rows of some units, and the examples that they found, as one shard."""
    rows = pd.concat([part.rows for part in parts], ignore_index=True)
    broken = torch.cat([part.broken.cpu() for part in parts])
    if artefacts.kept(task.store, step.name) and bool(broken.any()):
        ids = torch.from_numpy(rows["sample_id"].to_numpy(dtype=np.int64, copy=True))[broken]
        found = torch.cat([part.adversarial[part.broken].cpu() for part in parts])
        examples = artefacts.Examples(ids, task.data.x[task.places(ids.numpy())], found)
        artefacts.write(task.store, step.name, rows["sample_id"].to_numpy(), examples)
    task.write(step.name, rows)
