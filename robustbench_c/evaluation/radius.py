"""Certified radii: for each sample the largest eps that a method proves.

All samples search one grid of radii, so that those at the same place of the search are bounded
together, and a radius comes up at one place of the search only. What is reported was proved at
that very radius: nothing is interpolated, and no bound is assumed to be monotone. Of a radius that
was not tried, nothing is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import count, takewhile

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from attacks.threat import ThreatModel, diameter
from leaderboards.errors import one_line
from leaderboards.sample_ids import Ids
from leaderboards.verdicts import Verdict
from robustbench_c.evaluation.certificates import attempt, ending
from robustbench_c.evaluation.certifying import Certifier
from robustbench_c.evaluation.protocol_steps import Proof
from robustbench_c.evaluation.steps import Judged, frame_of
from robustbench_c.evaluation.task import Task

Values = npt.NDArray[np.float64]

SMALLEST = 1e-3
"""The smallest radius that is tried, as a share of eps; nothing proved there counts as 0."""


def grid(threat: ThreatModel, shape: tuple[int, ...], tolerance: float) -> list[float]:
    """Return the radii that are tried, ascending, eps among them.

    From a thousandth of eps up to the diameter of the box; each exceeds the one before by a share
    of `tolerance` (the last by less).
    """
    ratio, eps = 1 + tolerance, threat.eps
    below = math.floor(math.log(1 / SMALLEST) / math.log(ratio))
    top = max(eps, diameter(threat, shape))
    steps = (eps * ratio**k for k in count(-below))
    return [*takewhile(lambda radius: radius < top, steps), top]


@dataclass(eq=False)
class _Search:
    """The state of a search, for n samples: each lies between two places of the grid.

    Attributes:
        low: Place of the largest radius that is proved, -1 for none.
        high: Place of the smallest that was tried above it in vain, or the grid's length.
        bound: Lower bound of the margin at `low`.
        method: What proved it there, or None.
        seconds: Time spent.
        work: Subproblems bounded.
        said: What went wrong, or None.
    """

    low: Ids
    high: Ids
    bound: Values
    method: list[str | None]
    seconds: Values
    work: Ids
    said: list[str | None]

    @classmethod
    def begin(cls, ids: Ids, proved: pd.DataFrame, eps_place: int, places: int) -> _Search:
        """Start from what the run has proved already: eps, for some samples."""
        known = proved.reindex(ids)
        there = known["verdict"].notna().to_numpy()
        n = len(ids)
        return cls(
            low=np.where(there, eps_place, -1),
            high=np.full(n, places),
            bound=known["bound"].to_numpy(dtype=np.float64, copy=True),
            method=[m if t else None for m, t in zip(known["method"], there, strict=True)],
            seconds=np.zeros(n),
            work=np.zeros(n, dtype=np.int64),
            said=[None] * n,
        )

    @property
    def middle(self) -> Ids:
        """Where each sample is tried next."""
        middle: Ids = (self.low + self.high) // 2
        return middle


def measure_places(
    task: Task, certifier: Certifier, proof: Proof, part: Tensor, proved: pd.DataFrame, seed: int
) -> Judged:
    """Search the certified radii of the samples at the places `part`.

    Args:
        task: The run.
        certifier: Proves.
        proof: By which method, and on which grid.
        part: Places of the samples.
        proved: Rows of those that the run has certified already, by sample id: their radius is
            eps at least.
        seed: Seed of the method's noise.
    """
    threat = task.threat
    radii = grid(threat, task.data.shape, proof.tolerance or 0.0)
    ids = task.data.ids[part].numpy()
    state = _Search.begin(ids, proved, radii.index(threat.eps), len(radii))
    while (active := np.flatnonzero(state.high - state.low > 1)).size:
        middle = state.middle
        for at in np.unique(middle[active]):
            rows = active[middle[active] == at]
            for start in range(0, len(rows), proof.tile):
                _try(
                    task,
                    certifier,
                    proof,
                    part,
                    rows[start : start + proof.tile],
                    int(at),
                    radii[at],
                    state,
                    seed,
                )
    radius = np.array([radii[place] if place >= 0 else 0.0 for place in state.low])
    certified = radius >= threat.eps
    verdicts = [
        str(Verdict.CERTIFIED) if ok else str(Verdict.ERROR) if said else None
        for ok, said in zip(certified, state.said, strict=True)
    ]
    return Judged(
        rows=frame_of(
            task.data.ids[part],
            task.data.y[part],
            verdict=verdicts,
            bound=np.where(radius > 0, state.bound, np.nan),
            radius=radius,
            method=state.method,
            work=state.work,
            seconds=state.seconds,
            detail=[None if ok else said for ok, said in zip(certified, state.said, strict=True)],
        ),
        broken=torch.zeros(len(part), dtype=torch.bool),
        adversarial=task.data.x[part],
    )


def _try(
    task: Task,
    certifier: Certifier,
    proof: Proof,
    part: Tensor,
    rows: npt.NDArray[np.intp],
    at: int,
    radius: float,
    state: _Search,
    seed: int,
) -> None:
    """Try one radius on some samples (those in `rows` of `part`), and note what it gave."""
    chosen = part[torch.from_numpy(rows)]
    place = chosen.to(task.x.device)
    found = attempt(
        certifier,
        proof.method,
        task.x[place],
        task.y[place],
        task.data.ids[chosen],
        replace(task.threat, eps=radius),
        proof.budget,
        seed,
    )
    state.seconds[rows] += found.seconds.cpu().numpy()
    state.work[rows] += found.work.cpu().numpy()
    for i, row in enumerate(rows):
        end = ending(found.outcome[i], float(found.lower[i]), found.detail[i])
        if end.verdict == Verdict.CERTIFIED:
            state.low[row], state.bound[row] = at, float(found.lower[i])
            state.method[row] = found.method[i]
            continue
        state.high[row] = at
        if end.verdict == Verdict.ERROR:
            state.said[row] = one_line(f"at radius {radius:g}: {end.detail}")
