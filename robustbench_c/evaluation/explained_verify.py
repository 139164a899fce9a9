"""Checking a run about explanations again: bent ones are replayed, proofs are proved again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from leaderboards.columns import CERTAINTIES
from leaderboards.manifest import StepInfo
from leaderboards.verdicts import Verdict
from robustbench_c.evaluation import artefacts
from robustbench_c.evaluation.explained_attacking import bend_places, holds, recheck
from robustbench_c.evaluation.explained_config import method_of
from robustbench_c.evaluation.explained_lists import better_than
from robustbench_c.evaluation.explained_proving import Boxes, bound_places, units
from robustbench_c.evaluation.explained_task import ExplainedTask

TOLERANCE = 1e-3
"""Relative, of distances and bounds: more than machines differ by."""


def replay(on: ExplainedTask, step: StepInfo, rows: pd.DataFrame) -> tuple[list[str], int]:
    """Measure again what bent the explanations of the samples `rows`, indexed by sample id.

    Inputs are those that were kept. Weights are found again by the attack, with the run's seed.

    Returns:
        One line for each problem, and the number of samples that were replayed.
    """
    problems: list[str] = []
    replayed: set[int] = set()
    for examples in artefacts.read(on.task.store, step.name):
        ids = examples.ids
        if strangers := set(ids.tolist()) - set(rows.index):
            problems.append(
                f"step {step.name}, sample {min(strangers)}: a point, but it is not bent"
            )
            continue
        part = on.task.places(ids.numpy()).to(on.task.x.device)
        if not torch.equal(examples.clean.to(on.task.x.device), on.task.x[part]):
            problems.append(f"step {step.name}: the stored clean samples are not those of the data")
            continue
        adversarial, weights = examples.adversarial.to(on.task.x.device), None
        if on.config.budget is not None:  # that they belong to these inputs shows in the distance
            weights = bend_places(on, step, part).weights
        problems += _look(on, step, rows, part, adversarial, weights)
        replayed |= set(ids.tolist())
    if missing := sorted(set(rows.index) - replayed):
        problems.append(
            f"step {step.name}: {len(missing)} bent samples without a point, such as {missing[0]}"
        )
    return problems, len(replayed)


def _look(
    on: ExplainedTask,
    step: StepInfo,
    rows: pd.DataFrame,
    part: Tensor,
    adversarial: Tensor,
    weights: Mapping[str, Tensor] | None,
) -> list[str]:
    ids = on.task.data.ids[part.cpu()]
    check = recheck(on, part, adversarial, weights)
    _, bent = holds(on, check)
    told = torch.tensor(rows.loc[ids.tolist(), "explanation_distance"].tolist()).double()
    gap = (check.distance.cpu() - told).abs()
    problems = []
    for bad, what in (
        (~check.legal, "its point is outside of what the attacker may do"),
        (check.legal & ~bent, "its point does not bend the explanation"),
        (~(gap <= TOLERANCE * told.clamp_min(1e-12)), "its point is at another distance"),
    ):
        problems += [f"step {step.name}, sample {i}: {what}" for i in ids[bad.cpu()].tolist()]
    return problems


def prove_again(on: ExplainedTask, step: StepInfo, boxes: Boxes) -> tuple[list[str], int]:
    """Make the boxes of a step again, each beside the companions it had.

    Lists are made again of every sample that has some.

    Returns:
        One line for each problem, and the number of certified samples that were proved again.
    """
    method_of(step)  # an unknown one is an error before any work
    rows = on.task.store.read_step(step.name).set_index("sample_id")
    lists = [name for name in on.task.store.layout.lengths if rows[name].notna().any()]
    listed = rows.index[rows[lists].notna().any(axis=1)].to_numpy(np.int64)
    certified = rows.index[rows["verdict"].isin([Verdict.CERTIFIED])].to_numpy(np.int64)
    problems: list[str] = []
    good = 0
    for ids in units(on.task.store):
        mine, known = ids[np.isin(ids, certified)], ids[np.isin(ids, listed)]
        again = bound_places(on, step, boxes, on.task.places(ids)).set_index("sample_id")
        more = better_than(rows.loc[known, lists], again.loc[known, lists], TOLERANCE)
        problems += [
            f"step {step.name}, sample {i}: {what}" for what, bad in more.items() for i in bad
        ]
        lost = (again.loc[mine, "verdict"] != Verdict.CERTIFIED).to_numpy()
        problems += [
            f"step {step.name}, sample {i}: it cannot be proved again" for i in mine[lost].tolist()
        ]
        problems += [
            f"step {step.name}, sample {i}: its {name} is better than what is proved"
            for i, name in _better(rows.reindex(ids), again.reindex(ids)).items()
            if i not in mine[lost]
        ]
        good += int((~lost).sum())
    return problems, good


def _better(told: pd.DataFrame, proved: pd.DataFrame) -> dict[int, str]:
    """Samples of which a row says more than its box does, and the first column that does so.

    Counts (`top_k`, `signs`) are not compared: one rounding may change them by a whole entry.
    """
    found: dict[int, str] = {}
    for column in CERTAINTIES:
        if column.name in ("top_k", "signs"):
            continue
        claim, bound = (frame[column.name].to_numpy(np.float64) for frame in (told, proved))
        sign = -1.0 if column.name == "cosine" else 1.0
        size = np.maximum(np.abs(bound), 1.0 if column.name == "cosine" else 0.0)
        bad = ~np.isnan(claim) & ~(sign * (bound - claim) <= TOLERANCE * size)
        for i in told.index[bad].tolist():
            found.setdefault(i, "bound" if column.name == "explanation_bound" else column.name)
    return found
