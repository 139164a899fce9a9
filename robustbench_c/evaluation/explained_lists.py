"""What is certified of a sample beside its box: lists, and proving them again."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from certify.lipschitz import local_lipschitz
from certify.monotonicity import certify_monotone
from leaderboards.columns import BY_CLASS, BY_FEATURE
from leaderboards.manifest import StepInfo
from robustbench_c.evaluation.explained_config import method_of
from robustbench_c.evaluation.explained_task import ExplainedTask

_LOWER, _UPPER = (column.name for column in BY_CLASS)


def lists_of(on: ExplainedTask, step: StepInfo, part: Tensor) -> tuple[dict[str, object], Tensor]:
    """Certify what the run asks for, of the samples at the places `part`.

    Local Lipschitz constants do not depend on the method: the first certificate has them. They
    are those of the model as it is, whatever may happen to its weights.

    Monotonicity is that of the score that the explanation is a gradient of.

    Returns:
        Columns by name, and the subproblems that it took, int64 (n,).

    Raises:
        UnsupportedError: An operation has no rule.
    """
    budget, work = on.config.lipschitz, part.new_zeros(len(part))
    columns: dict[str, object] = {}
    if on.config.monotone:
        columns[BY_FEATURE.name] = _signs(on, step, part)
    if budget is None or step.name != f"explain-{on.config.methods[0]}":
        return columns, work
    x = on.task.x[part]
    found = local_lipschitz(
        on.model, x, on.task.threat, budget=budget, seed=on.task.seed, steepness=on.steepness
    )
    columns |= {_LOWER: _plain(found.lower), _UPPER: _plain(found.upper)}
    return columns, work + found.subproblems.sum(1)


def _signs(on: ExplainedTask, step: StepInfo, part: Tensor) -> list[list[int]]:
    """1 where the score rises with the feature, -1 where it falls, 2 for both, 0 for neither."""
    features = torch.tensor(on.config.monotone, device=part.device)
    seed = on.seeds(part, on.task.classifier.logits(on.task.x[:1]).shape[1])
    found = certify_monotone(
        on.slopes,
        on.task.x[part],
        seed,
        features,
        on.task.threat,
        on.config.budget,
        method_of(step),
    )
    signs = found.increasing.long() - found.decreasing.long()
    constant = found.increasing & found.decreasing
    return signs.masked_fill(constant, 2).tolist()


def better_than(told: pd.DataFrame, found: pd.DataFrame, tolerance: float) -> dict[str, list[int]]:
    """Return the samples of which a record tells more than is found again, by what it tells.

    Args:
        told: Rows on record, indexed by sample id.
        found: Rows of the same samples, made again.
        tolerance: Relative: more than machines differ by.
    """
    problems: dict[str, list[int]] = {}
    if BY_FEATURE.name in told:
        signs = told[BY_FEATURE.name].dropna()
        again = found.loc[signs.index, BY_FEATURE.name]
        bad = [
            any(a not in (0, b) and b != 2 for a, b in zip(claims, proved, strict=True))
            for claims, proved in zip(signs, again, strict=True)
        ]
        if any(bad):
            problems["it cannot be proved again to be monotone"] = signs.index[bad].tolist()
    if _UPPER not in told:
        return problems
    for name, sign, what in (
        (_UPPER, 1.0, "its Lipschitz constants are better than what is proved"),
        (_LOWER, -1.0, "its gradients are steeper than those that are found"),
    ):
        for sample in told.index[told[name].notna()]:
            claims, again = told.at[sample, name], found.at[sample, name]
            if again is None:
                problems.setdefault(what, []).append(int(sample))
                continue
            a, b = (np.array(v, dtype=np.float64) for v in (claims, again))
            unknown = np.isnan(b) & ~np.isnan(a)  # infinite: nothing is known
            more = sign * (b - a) > tolerance * np.maximum(np.abs(b), np.finfo(np.float32).tiny)
            if bool((unknown | more).any()):
                problems.setdefault(what, []).append(int(sample))
    return problems


def _plain(values: Tensor) -> list[list[float | None]]:
    """Lists of what is finite, and None for the rest."""
    return [[v if math.isfinite(v) else None for v in row] for row in values.tolist()]
