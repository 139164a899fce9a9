"""Proving again what a record calls certified."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from leaderboards.errors import RecordError
from leaderboards.manifest import StepInfo
from leaderboards.verdicts import Verdict
from robustbench_c.evaluation.certificates import certify_places
from robustbench_c.evaluation.certifying import METHODS, Certifier
from robustbench_c.evaluation.protocol_steps import Proof
from robustbench_c.evaluation.proving import plan, prove_unit
from robustbench_c.evaluation.task import Task, settled_before


def claims(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows, by sample id, that say something was proved."""
    return rows[rows["verdict"].isin([Verdict.CERTIFIED]) | (rows["radius"] > 0)]


def prove_again(
    task: Task, step: StepInfo, certifier: Certifier, tolerance: float
) -> tuple[list[str], int]:
    """Prove the certified samples of a step again, each by the method on record.

    Args:
        task: The run.
        step: One of its certificates.
        certifier: Proves.
        tolerance: By how much a bound on record may exceed the one that is found.

    Returns:
        One line for each problem, and the number of claims that were proved again.
    """
    rows = claims(task.store.read_step(step.name).set_index("sample_id"))
    proof = Proof.of(step)
    if proof.tolerance is None:
        return _certified(task, step, certifier, rows, tolerance)
    return _radii(task, step, proof, certifier, rows)


def _certified(
    task: Task, step: StepInfo, certifier: Certifier, rows: pd.DataFrame, tolerance: float
) -> tuple[list[str], int]:
    """Bound every unit with a claim in it, whole: with the same companions as in the run."""
    problems, good = [], 0
    strangers = set(rows.index)
    settled = settled_before(task.store, step.name)
    for unit in plan(task.store, step, settled):
        strangers -= set(unit.ids.tolist())
        claimed = rows[rows.index.isin(unit.ids)]
        if claimed.empty:
            continue
        found = prove_unit(task, certifier, unit, settled).rows.set_index("sample_id")
        found = found.loc[claimed.index]
        holds = (found["verdict"] == Verdict.CERTIFIED).to_numpy(dtype=np.bool_)
        higher = holds & (claimed["bound"] > found["bound"] + tolerance).to_numpy()
        for bad, what in (
            (~holds, "certified, but it cannot be proved again"),
            (higher, "its bound is higher than the one that is proved"),
            (claimed["method"] != found["method"], "it was proved by another method"),
        ):
            problems += [f"step {step.name}, sample {i}: {what}" for i in claimed.index[bad]]
        good += int((holds & ~higher).sum())
    problems += [
        f"step {step.name}, sample {i}: certified, but the step had no business with it"
        for i in sorted(strangers)
    ]
    return problems, good


def _radii(
    task: Task, step: StepInfo, proof: Proof, certifier: Certifier, rows: pd.DataFrame
) -> tuple[list[str], int]:
    """Prove each radius at that radius, those of one radius together."""
    settled = settled_before(task.store, step.name)
    known = set(settled.index[settled["verdict"] == Verdict.CERTIFIED])
    problems, good = [], 0
    for (method, radius), group in rows.groupby([rows["method"], rows["radius"].astype(float)]):
        if method not in METHODS:
            raise RecordError(f"step {step.name}: a radius by the unknown method '{method}'")
        # eps itself may be the work of an earlier step, and is proved again there
        taken = radius == task.threat.eps
        ids = group.index[[not (taken and i in known) for i in group.index]].to_numpy(np.int64)
        good += len(group) - len(ids)
        there = replace(task, threat=replace(task.threat, eps=float(str(radius))))
        how = replace(proof, method=method)
        for start in range(0, len(ids), proof.tile):
            part = task.places(ids[start : start + proof.tile])
            found = certify_places(there, certifier, how, part, task.seed).rows
            bad = found["sample_id"][found["verdict"] != Verdict.CERTIFIED].tolist()
            problems += [
                f"step {step.name}, sample {i}: its radius cannot be proved again" for i in bad
            ]
            good += len(found) - len(bad)
    return problems, good
