"""A run of common corruptions: every kind at every severity, on every sample, right or wrong.

Each kind is a step; its rows hold the class predicted at each severity. `broken` says of a sample
that is right as it is: at some severity it is not.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from attacks.corruption_kinds import KIND, KindName
from attacks.corruptions import SEVERITIES, check_corruption, corrupt, kinds_for
from attacks.driver import distances
from attacks.losses import margin
from leaderboards.changed import classes_under
from leaderboards.manifest import CorruptionInfo, Parameter, Protocol, StepInfo
from leaderboards.sample_ids import Ids
from leaderboards.verdicts import CLEAN_STEP, RULES_VERSION, Verdict
from robustbench_c.data import Dataset
from robustbench_c.errors import UsageError
from robustbench_c.evaluation.changing import begin, whole_box
from robustbench_c.evaluation.passes import passes_of
from robustbench_c.evaluation.run import Run
from robustbench_c.evaluation.sharing import Progress, Report, begun_at, cut, finish, work_off
from robustbench_c.evaluation.steps import frame_of, whole_where
from robustbench_c.evaluation.task import Task
from robustbench_c.evaluation.threats import threat_info
from robustbench_c.run_log import logged
from robustbench_c.zoo.loading import LoadedModel

CORRUPTION_VERSION = 1

_SHARD_SAMPLES = 256
_SHARD_BYTES = 1 << 28
_NOT_FINITE = "a logit was NaN or Inf under the corruption"


def corruptions(
    model: nn.Module | LoadedModel,
    data: Dataset,
    kinds: tuple[KindName, ...] | None = None,
    severities: tuple[int, ...] = SEVERITIES,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    out: Path | str = "runs",
    overwrite: bool = False,
    progress: Progress | None = None,
    start: float = 0.0,
) -> Run:
    """Measure a model under common corruptions, and write the record of it.

    As `evaluate` does, a run that is on disk goes on where it stopped.

    Args:
        model: A classifier in eval mode: (batch, *shape) to logits (batch, classes).
        data: Images, (C, H, W).
        kinds: Kinds of corruption; None: all that apply to the samples.
        severities: From 1 to 5.
        seed: Seed of the noise.
        batch_size: Most samples in one pass; None measures. Changes no result.
        device: Where to run.
        out: Folder of the runs.
        overwrite: Throw away the record of the same run, if there is one, and start afresh.
        progress: Called as samples finish; its last number counts those that broke.
        start: Of several calls that share a folder: where this one begins, in [0, 1), as of
            `evaluate`.

    Raises:
        AttackError: No images, no such kind or severity, or not for these images.
        DataError, ModelError, RecordError, RunError, UsageError: As `changing.begin`.
    """
    severities = tuple(sorted(set(severities)))
    if not severities:
        raise UsageError("no severity is given: use some of 1 to 5")
    kinds = tuple(dict.fromkeys(kinds)) if kinds else kinds_for(data.shape)
    for kind in kinds:
        for severity in severities:
            check_corruption(kind, severity, data.shape)
    threat = whole_box(data)
    protocol = Protocol(
        threat=threat_info(threat),
        steps=tuple(_step(kind, severities) for kind in kinds),
        rules=RULES_VERSION,
        corruption=CorruptionInfo(severities=severities),
    )
    begun = begin(
        model,
        data,
        threat,
        protocol,
        ("corruptions",),
        seed=seed,
        batch_size=batch_size,
        device=device,
        out=out,
        overwrite=overwrite,
        progress=progress,
        start=start,
    )
    store = begun.task.store
    with passes_of(store.manifest), logged(store, begun.task.x.device, begun.resumed):
        for kind in begun_at(start, kinds):  # none hangs on another
            _corrupt_samples(begun.task, kind, severities)
        return Run(store.folder, store, finish(store, begun.task.leases), begun.resumed)


def _step(kind: KindName, severities: tuple[int, ...]) -> StepInfo:
    """A kind as a step of a protocol, with the strengths that the severities stand for."""
    strengths = {f"strength_{s}": float(KIND[kind].strengths[s - 1]) for s in severities}
    parameters: dict[str, Parameter] = {"knowledge": "none", "samples": "all", **strengths}
    return StepInfo(name=kind, kind="attack", version=CORRUPTION_VERSION, parameters=parameters)


def _corrupt_samples(task: Task, kind: KindName, severities: tuple[int, ...]) -> None:
    """Corrupt every sample that has no row yet, in shards of a fair length."""
    size = max(1, min(_SHARD_SAMPLES, _SHARD_BYTES // (task.x[0].nbytes * 4)))

    def work(ids: Ids, _: Report) -> None:
        task.write(kind, corruption_rows(task, task.places(ids), kind, severities))

    shards = cut(task.data.ids.numpy(), size)
    work_off(task.store, task.leases, kind, shards, work, task.progress)


def corruption_rows(
    task: Task, part: Tensor, kind: KindName, severities: tuple[int, ...]
) -> pd.DataFrame:
    """Rows of a kind for the samples at the places `part`.

    The row is about the first severity that is misclassified, else about that of least margin.
    """
    started, place = time.perf_counter(), part.to(task.x.device)
    x, y, ids, data = task.x[place], task.y[place], task.data.ids[part], task.data
    found, gaps, moved = [], [], []
    for severity in severities:
        changed = corrupt(x, kind, severity, ids, task.seed, data.lower, data.upper)
        logits = task.classifier.logits(changed)
        finite = logits.isfinite().all(1)
        found.append(torch.where(finite, logits.argmax(1), -1))
        gaps.append(torch.where(finite, margin(logits, y).double(), torch.nan))
        moved.append(distances(x, changed, task.threat))
    prediction, gap, distance = (torch.stack(each, 1) for each in (found, gaps, moved))
    known = prediction >= 0
    missed = known & (prediction != y[:, None])
    lowest = gap.nan_to_num(nan=torch.inf).argmin(1)
    point = torch.where(missed.any(1), missed.int().argmax(1), lowest)
    clean = task.store.read_step(CLEAN_STEP).set_index("sample_id")["verdict"]
    right = torch.tensor(clean.reindex(ids.numpy()).isna().tolist(), device=missed.device)
    broken = right & missed.any(1)
    failed = (~known).any(1) & ~broken
    shown = (~failed).cpu().numpy()

    def at(values: Tensor) -> Tensor:
        return values.gather(1, point[:, None])[:, 0]

    seconds = (time.perf_counter() - started) / len(part)
    return frame_of(
        ids,
        y.cpu(),
        layout=task.store.layout,
        verdict=[
            str(Verdict.BROKEN) if b else str(Verdict.ERROR) if f else None
            for b, f in zip(broken.tolist(), failed.tolist(), strict=True)
        ],
        prediction=whole_where(shown, at(prediction)),
        margin=np.where(shown, at(gap).cpu().numpy(), np.nan),
        distance=at(distance).cpu().numpy(),
        iteration=whole_where(shown, point),
        predictions=[[None if p < 0 else p for p in row] for row in prediction.tolist()],
        forwards=np.full(len(part), len(severities), dtype=np.int64),
        seconds=np.full(len(part), seconds),
        detail=[_NOT_FINITE if f else None for f in failed.tolist()],
    )


def check_corruptions(task: Task, tolerance: float) -> tuple[list[str], int]:
    """Corrupt every sample again, and compare with the record.

    Args:
        task: What the run was on.
        tolerance: Most that a margin may differ by.

    Returns:
        One line for each problem, and how many broken samples were broken again.
    """
    problems, again, protocol = [], 0, task.store.manifest.protocol
    severities = () if protocol.corruption is None else protocol.corruption.severities
    for step in protocol.steps:
        if step.name not in KIND or step != _step(step.name, severities):
            problems.append(f"step {step.name} is no corruption that this version knows")
            continue
        kind: KindName = step.name
        rows = task.store.read_step(kind).set_index("sample_id")
        for places in task.places(rows.index.to_numpy()).split(_SHARD_SAMPLES):  # type: ignore[no-untyped-call]
            here = corruption_rows(task, places, kind, severities).set_index("sample_id")
            there = rows.loc[here.index]
            far = ((here["margin"] - there["margin"]).abs() > tolerance).to_numpy()
            now, then = (classes_under(frame, len(severities)) for frame in (here, there))
            far = far | ((now != then) & ~(np.isnan(now) & np.isnan(then))).any(1)
            problems += [
                f"step {kind}, sample {i}: the corrupted sample has another margin or class"
                for i in here.index[far]
            ]
            again += int((here["verdict"].isin([Verdict.BROKEN]) & ~far).sum())
    return problems, again
