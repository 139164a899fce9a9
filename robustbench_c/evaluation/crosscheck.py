"""A second opinion: auto_LiRPA on the samples that our bounds were run on, by the same method."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from certify import lirpa
from certify.specification import margins
from leaderboards.errors import one_line
from leaderboards.files import atomic_write_bytes
from leaderboards.manifest import StepInfo
from leaderboards.sample_ids import Ids
from leaderboards.verdicts import Verdict
from robustbench_c.errors import CheckFailedError
from robustbench_c.evaluation.protocol_steps import Proof
from robustbench_c.evaluation.task import Task

FILE = "cross-check.json"
ROUNDING = 1e-5
"""Of the larger of 1 and the bounds: auto_LiRPA does not round outwards."""

_METHODS: dict[str, lirpa.Method] = {"ibp": "IBP", "crown-ibp": "CROWN-IBP", "crown": "CROWN"}
_BATCH = 50
_Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Compared:
    """One step beside auto_LiRPA, on the samples that both bounded.

    Attributes:
        step: Name of the step.
        method: Name of the method.
        samples: Samples that both bounded.
        ours: Samples that we certify.
        theirs: Samples that auto_LiRPA certifies.
        both: Samples that both certify.
        tighter: Largest amount by which our lower bound of the margin exceeds theirs; may be < 0.
        looser: Largest amount by which theirs exceeds ours; may be < 0.
        our_seconds: Time of ours.
        their_seconds: Time of theirs.
    """

    step: str
    method: str
    samples: int
    ours: int
    theirs: int
    both: int
    tighter: float
    looser: float
    our_seconds: float
    their_seconds: float


@dataclass(frozen=True)
class CrossCheck:
    """What the second opinion gave.

    Attributes:
        compared: One entry for each step that could be compared.
        notices: What could not, and why.
    """

    compared: tuple[Compared, ...]
    notices: tuple[str, ...]


def cross_check(task: Task) -> CrossCheck:
    """Compare every certificate of a run that auto_LiRPA has, too; write `cross-check.json`.

    Raises:
        CheckFailedError: Bounds that cannot both hold, beyond rounding.
    """
    notices, compared, problems = [], [], []
    for step in task.store.manifest.protocol.steps:
        if step.kind != "certificate" or Proof.of(step).tolerance is not None:
            continue
        if (reason := _cannot(task, step)) is not None:
            notices.append(reason)
            continue
        try:
            entry, found = _compare(task, step)
        except Exception as error:  # its defects are not ours: it has no opinion
            said = one_line(f"{type(error).__name__}: {error}", limit=200)
            notices.append(f"{step.name}: no second opinion, auto_LiRPA failed ({said})")
            continue
        compared += [] if entry is None else [entry]
        problems += found
    result = CrossCheck(tuple(compared), tuple(dict.fromkeys(notices)))
    text = json.dumps(asdict(result) | {"problems": problems}, indent=2, allow_nan=False) + "\n"
    atomic_write_bytes(task.store.folder / FILE, text.encode())
    if problems:
        raise CheckFailedError(
            f"auto_LiRPA contradicts {len(problems)} results, the first: {problems[0]} "
            f"(all: {task.store.folder / FILE})"
        )
    return result


def _cannot(task: Task, step: StepInfo) -> str | None:
    """Why there is no second opinion on a step, or None."""
    if (missing := lirpa.notice()) is not None:
        return missing
    if task.threat.norm != "linf":
        return f"no second opinion on {task.threat.norm}: auto_LiRPA is asked about linf only"
    method = Proof.of(step).method
    return None if method in _METHODS else f"no second opinion on {method}: auto_LiRPA has none"


def _compare(task: Task, step: StepInfo) -> tuple[Compared | None, list[str]]:
    rows = task.store.read_step(step.name)
    rows = rows[rows["bound"].notna()].set_index("sample_id")
    if rows.empty:
        return None, []
    ids = rows.index.to_numpy(dtype=np.int64)
    method = Proof.of(step).method
    started = time.perf_counter()
    lower, upper = _bounds(task, task.places(ids), _METHODS[method])
    seconds = time.perf_counter() - started
    ours = rows["bound"].to_numpy(dtype=np.float64)
    slack = ROUNDING * np.maximum(1.0, np.maximum(np.abs(lower), np.abs(upper)))
    proved = rows["verdict"].isin([Verdict.CERTIFIED]).to_numpy()
    broken = np.isin(ids, _broken(task))
    faults = {
        "our lower bound of the margin exceeds its upper bound": ours > upper + slack,
        "it certifies a sample that is broken": broken & (lower > slack),
    }
    problems = [
        f"step {step.name}, sample {sample}: {fault}"
        for fault, where in faults.items()
        for sample in ids[where].tolist()
    ]
    theirs = lower > 0
    entry = Compared(
        step=step.name,
        method=method,
        samples=len(ids),
        ours=int(proved.sum()),
        theirs=int(theirs.sum()),
        both=int((proved & theirs).sum()),
        tighter=float((ours - lower).max()),
        looser=float((lower - ours).max()),
        our_seconds=float(rows["seconds"].sum()),
        their_seconds=seconds,
    )
    return entry, problems


def _broken(task: Task) -> Ids:
    """The samples that any step broke."""
    frames = pd.concat([task.store.read_step(step) for step in task.store.steps[1:]])
    broken = frames["verdict"].isin([Verdict.BROKEN])
    return frames["sample_id"][broken].to_numpy(dtype=np.int64)


def _bounds(task: Task, part: Tensor, method: lirpa.Method) -> tuple[_Values, _Values]:
    """auto_LiRPA's bounds of each sample's least margin: (n,) each."""
    lower, upper = [], []
    classes = len(task.store.manifest.data.classes)
    for start in range(0, len(part), _BATCH):
        place = part[start : start + _BATCH].to(task.x.device)
        low, high = task.threat.bounds(task.x[place])
        rivals = margins(task.y[place], classes).coefficients
        least, most = lirpa.bounds(task.classifier.module, low, high, method, rivals)
        lower.append(least.amin(1))
        upper.append(most.amin(1))
    return tuple(torch.cat(ends).double().cpu().numpy() for ends in (lower, upper))  # type: ignore[return-value]  # two of them
