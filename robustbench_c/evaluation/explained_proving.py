"""Certificates of every explanation, shard by shard; an attack beyond one stops the run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from attacks.errors import TooLittleMemoryError
from attacks.explanations import Explanation
from attacks.threat import ThreatModel, WeightBudget
from certify.explaining import ExplanationCertifier, Method
from certify.explanation_metrics import box_metrics, worst_distance
from certify.interval import Interval
from leaderboards.errors import one_line
from leaderboards.manifest import StepInfo
from leaderboards.sample_ids import Ids
from leaderboards.store import RunStore
from leaderboards.verdicts import Reason, Verdict
from robustbench_c.errors import ModelError
from robustbench_c.evaluation import contradiction, explained_contradiction
from robustbench_c.evaluation.explained_config import TILE, method_of
from robustbench_c.evaluation.explained_lists import lists_of
from robustbench_c.evaluation.explained_task import ExplainedTask
from robustbench_c.evaluation.sharing import Report, work_off
from robustbench_c.evaluation.steps import frame_of
from robustbench_c.evaluation.task import right_ids

_UNITS = 2
"""Units of a shard."""
_NOT_FINITE = "the box is NaN or Inf: no bound"


class Boxes(Protocol):
    """Bounds explanations of one model."""

    def box(
        self,
        x: Tensor,
        seed: Tensor,
        threat: ThreatModel | None = None,
        budget: WeightBudget | None = None,
        method: Method = "crown-interval",
    ) -> Interval:
        """A box that holds the explanation of each sample: see `ExplanationCertifier.box`."""
        ...


def make_boxes(model: nn.Module, x: Tensor, explanation: Explanation) -> Boxes:
    """Return the bound engine for a model's explanations."""
    return ExplanationCertifier(model, x, explanation)


def entries_of(boxes: Boxes | None) -> int:
    """How many numbers the bound engine knows of a sample; 0 of one that is not ours."""
    return boxes.numbers if isinstance(boxes, ExplanationCertifier) else 0


def units(store: RunStore) -> Iterator[Ids]:
    """The samples whose boxes are made together, by id.

    Always the same ones, cut from the whole set of samples: neither the order of the data nor a
    resume has an influence on the last bits of a bound.
    """
    ids = right_ids(store)
    return (ids[start : start + TILE] for start in range(0, len(ids), TILE))


def bound_samples(on: ExplainedTask, step: StepInfo, boxes: Boxes) -> None:
    """Bound the explanation of every sample that has no row yet.

    Raises:
        ContradictionError: An attack bent an explanation further than is proved possible; the
            evidence is on disk.
    """
    task, store = on.task, on.task.store
    attacked = explained_contradiction.attacked(store)
    cuts = list(units(store))
    groups = [cuts[start : start + _UNITS] for start in range(0, len(cuts), _UNITS)]

    def work(ids: Ids, report: Report) -> None:
        parts: list[pd.DataFrame] = []
        for unit in cuts:
            new = np.isin(unit, ids)
            if not new.any():
                continue
            rows = bound_places(on, step, boxes, task.places(unit))[new].reset_index(drop=True)
            parts.append(rows)
            bad = explained_contradiction.contradicted(rows, attacked)
            if bad.size:
                explained_contradiction.save(on, step, rows, bad, boxes)
                task.write(step.name, pd.concat(parts, ignore_index=True))
                contradiction.stop(store.folder, bad)
            verdicts = pd.concat([part["verdict"] for part in parts])
            report(len(verdicts), int(verdicts.isin([Verdict.CERTIFIED]).sum()))
        task.write(step.name, pd.concat(parts, ignore_index=True))

    shards = [np.concatenate(group) for group in groups]
    work_off(store, task.leases, step.name, shards, work, task.progress)


def bound_places(on: ExplainedTask, step: StepInfo, boxes: Boxes, part: Tensor) -> pd.DataFrame:
    """Return the rows of a certificate for the samples at the places `part`.

    The bound covers the distance from the clean explanation in float32 and from that in float64.
    """
    part = part.to(on.task.x.device)
    method, criterion = method_of(step), on.config.criterion
    started = time.perf_counter()
    box, failures = box_of(on, boxes, method, part)
    clean = on.clean(part)
    bound = worst_distance(criterion, clean, box)
    if on.precise is not None:
        bound = torch.maximum(bound, worst_distance(criterion, on.clean(part, on.precise), box))
    metrics = {name: _known(v) for name, v in box_metrics(clean, box, on.k).items()}
    nothing = ~(box.lower.isfinite() & box.upper.isfinite()).flatten(1).all(1).cpu().numpy()
    failures = [
        _NOT_FINITE if text is None and bad else text
        for text, bad in zip(failures, nothing.tolist(), strict=True)
    ]
    for values in metrics.values():
        values[nothing] = np.nan
    shown = _known(bound)
    failed = np.array([text is not None for text in failures])
    proved = (shown <= criterion.threshold) & ~failed
    lists, work = lists_of(on, step, part)
    verdict = np.select([failed, proved], [str(Verdict.ERROR), str(Verdict.CERTIFIED)], "")
    seconds = (time.perf_counter() - started) / len(part)
    return frame_of(
        on.task.data.ids[part.cpu()],
        on.task.y[part],
        verdict=[text or None for text in verdict.tolist()],
        method=[method] * len(part),
        work=1 + work.cpu().numpy(),
        seconds=np.full(len(part), seconds),
        detail=[
            text if text is not None else None if good else str(Reason.UNKNOWN)
            for text, good in zip(failures, proved.tolist(), strict=True)
        ],
        layout=on.task.store.layout,
        explanation_bound=shown,
        **metrics,
        **lists,
    )


def box_of(
    on: ExplainedTask, boxes: Boxes, method: Method, part: Tensor
) -> tuple[Interval, list[str | None]]:
    """Boxes of the samples at the places `part`, and what went wrong with each of them.

    Raises:
        Exception: The model cannot be bounded at all (an error with the exit code of
            `ModelError`).
    """
    x = on.task.x[part]
    try:
        seed = on.seeds(part, on.task.classifier.logits(x[:1]).shape[1])
        return boxes.box(x, seed, on.threat, on.config.budget, method), [None] * len(x)
    except Exception as error:  # whatever a bound can raise, the other samples have their turn
        if getattr(error, "exit_code", None) == ModelError.exit_code:
            raise
        if isinstance(error, TooLittleMemoryError):
            raise
        if len(x) == 1:
            nothing = torch.full_like(x, torch.nan)
            said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return Interval.point(nothing), [one_line(said)]
    found = [box_of(on, boxes, method, part[i : i + 1]) for i in range(len(x))]
    lower, upper = (torch.cat([getattr(b, end) for b, _ in found]) for end in ("lower", "upper"))
    return Interval(lower, upper), [text for _, texts in found for text in texts]


def _known(values: Tensor) -> np.ndarray:
    """Finite values, and NaN for the others."""
    found: np.ndarray = values.double().cpu().numpy().copy()
    found[~np.isfinite(found)] = np.nan
    return found
