"""What the attacks of a run may spend: passes of each sample, and time, over all of their steps.

Those that close a suite spend nothing on samples that the others did not come near to break.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from math import fsum

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from attacks.problem import Limits
from leaderboards.errors import RecordError
from leaderboards.manifest import Parameter, StepInfo
from leaderboards.near import NEAR, near_before
from leaderboards.store import RunStore
from robustbench_c.errors import UsageError
from robustbench_c.evaluation.task import Task

QUERIES, SECONDS = "max_queries", "seconds"
"""Names in the parameters of a step; a step with `seconds` makes its record not reproducible."""
_ANY = 2**53


@dataclass(frozen=True)
class AttackBudget:
    """Limits that hold for all attacks of a run together.

    Attributes:
        queries: Most forward passes of a sample, >= 1, whether a gradient follows or not; None: as
            many as the attacks take. Counted work: part of the protocol, and no verdict hangs on
            other samples.
        seconds: Time of the attack steps, > 0; None: as long as they take. Samples that it ends
            are left open, and the record is not reproducible.
    """

    queries: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.queries is not None and not 1 <= self.queries <= 2**53:
            raise UsageError(f"a budget of {self.queries} queries: it must be at least 1")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise UsageError(f"a budget of {self.seconds} seconds: it must be positive and finite")

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The limits as parameters of a step; none of what is not limited."""
        given = {QUERIES: self.queries, SECONDS: self.seconds}
        return {name: value for name, value in given.items() if value is not None}

    @classmethod
    def of(cls, step: StepInfo) -> AttackBudget:
        """The limits of a step that may be on a stranger's record.

        Raises:
            RecordError: They are no limits.
        """
        queries, seconds = (step.parameters.get(name) for name in (QUERIES, SECONDS))
        try:
            if isinstance(queries, int | None) and isinstance(seconds, int | float | None):
                return cls(queries, seconds)
        except UsageError:
            pass
        raise RecordError(f"step {step.name} has a budget that is none: {queries!r}, {seconds!r}")


def limits_of(task: Task, step: StepInfo, part: Tensor, timed: bool = True) -> Limits:
    """What is left to the samples at the places `part` when a step comes to them.

    Args:
        task: The run.
        step: An attack.
        part: Places in `task.data`, int64, (k,).
        timed: Whether the clock counts.
    """
    budget, clean = AttackBudget.of(step), task.clean[part.to(task.x.device)]
    queries = queries_left(task, step, part)
    queries = None if queries is None else queries.to(clean.device)
    if (near := near_places(task, step, part)) is not None:
        most = torch.full_like(near, _ANY, dtype=torch.int64) if queries is None else queries.cpu()
        queries = torch.where(near, most, 0).to(clean.device)
    if budget.seconds is None or not timed:
        return Limits(clean, queries)
    seconds = fsum(fsum(rows["seconds"]) for _, rows in _attack_rows(task.store))
    return Limits(clean, queries, time.perf_counter() + budget.seconds - seconds)


def queries_left(task: Task, step: StepInfo, part: Tensor) -> Tensor | None:
    """What a step may still ask of the samples at the places `part`, int64, (k,); None: anything.

    What the attacks before it spent is taken off, and it is not looked at whether it is for them.
    """
    most = AttackBudget.of(step).queries
    if most is None:
        return None
    before = task.store.steps[: task.store.steps.index(step.name)]
    spent = Counter[int]()
    for name, frame in _attack_rows(task.store):
        if name in before:
            spent.update(dict(zip(frame["sample_id"], frame["forwards"], strict=True)))
    left = [most - spent[i] for i in task.data.ids[part].tolist()]
    return torch.tensor(left, dtype=torch.int64)


def near_places(task: Task, step: StepInfo, part: Tensor) -> Tensor | None:
    """Which samples, at the places `part`, an attack is for: bool, (k,); None: it is for all."""
    if NEAR not in step.parameters:
        return None
    return torch.from_numpy(np.isin(task.data.ids[part].numpy(), near_before(task.store, step)))


def _attack_rows(store: RunStore) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each attack so far; they run in the order of the protocol."""
    return [(name, store.read_step(name)) for name in store.steps if store.kind(name) == "attack"]
