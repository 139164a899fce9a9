"""An attack on every sample that is open, shard by shard, written down as it comes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from attacks.classifier import TiledClassifier
from attacks.driver import missed
from attacks.registry import AttackConfig, kind_of
from leaderboards.manifest import StepInfo
from leaderboards.verdicts import Verdict
from robustbench_c.evaluation import artefacts
from robustbench_c.evaluation.pictures import contact_sheet
from robustbench_c.evaluation.protocol_steps import attack_of
from robustbench_c.evaluation.steps import Judged, attack_rows
from robustbench_c.evaluation.task import Task, right_ids, settled_before
from robustbench_c.evaluation.threats import searched

_SHARD_SECONDS = 30.0
_SHARD_SAMPLES = 2000
_SHARD_BYTES = 1 << 29


def attack_samples(task: Task, step: StepInfo) -> None:
    """Attack what is open and has no row yet, in shards of a fair length.

    Whoever looks for nearest adversarial examples looks for those of all samples that are right.
    """
    config, name = attack_of(step), step.name
    there = task.store.read_step(name)
    ids = task.data.ids.numpy()
    left = right_ids(task.store)
    if not step.minimal:
        left = np.setdiff1d(left, settled_before(task.store, name).index)
    rows = np.flatnonzero(np.isin(ids, left) & ~np.isin(ids, there["sample_id"]))
    total, finished = len(left), len(there)
    broken = _broken(there)

    def report(done: int, hits: int) -> None:
        if task.progress is not None:
            task.progress(name, finished + done, total, broken + hits)

    size = _shard_size(task, config)
    for start in range(0, len(rows), size):
        part = torch.from_numpy(rows[start : start + size])
        report(0, 0)
        judged = search(task, part, step, report)
        hit = judged.broken
        if artefacts.kept(task.store, name) and bool(hit.any()):
            clean = task.x[part.to(task.x.device)[hit]]
            examples = artefacts.Examples(
                task.data.ids[part][hit.cpu()], clean, judged.adversarial[hit]
            )
            artefacts.write(task.store, name, ids[part.numpy()], examples)
        task.store.write_shard(name, judged.rows)
        finished, broken = finished + len(part), broken + _broken(judged.rows)
        _picture(task, part, judged)


def search(
    task: Task, part: Tensor, step: StepInfo, report: Callable[[int, int], None] | None = None
) -> Judged:
    """Attack the samples at the places `part`, and re-check what is found."""
    ids, place, config = task.data.ids[part], part.to(task.x.device), attack_of(step)
    x, y, threat = task.x[place], task.y[place], searched(step, task.threat, task.data.shape)
    result = kind_of(config).run(
        task.classifier,
        x,
        y,
        ids,
        threat,
        config,
        task.seed,
        confirm=None if task.precise is None else partial(_misses, task.precise),
        progress=report,
        **({"minimal": True} if step.minimal else {}),
    )
    eps = task.threat.eps
    return attack_rows(task.classifier, task.precise, x, y, ids, threat, result, eps)


def _broken(rows: pd.DataFrame) -> int:
    """The number of samples that rows call broken."""
    return int(rows["verdict"].isin([Verdict.BROKEN]).sum())


def _misses(precise: TiledClassifier, adversarial: Tensor, y: Tensor) -> Tensor:
    """Which inputs are misclassified in float64 too."""
    return missed(precise.logits(adversarial.double()), y)


def _shard_size(task: Task, config: AttackConfig) -> int:
    classes = len(task.data.classes)
    worst = task.classifier.seconds * kind_of(config).passes(config, classes)
    samples = max(_SHARD_SECONDS / max(worst, 1e-9), task.classifier.tiles[-1])
    return max(1, int(min(samples, _SHARD_SAMPLES, _SHARD_BYTES // task.x[0].nbytes)))


def _picture(task: Task, part: Tensor, judged: Judged) -> None:
    """Draw the first samples that broke, unless they were drawn before."""
    data, manifest = task.data, task.store.manifest
    hit = judged.rows["verdict"].isin([Verdict.BROKEN]).to_numpy()
    chosen = torch.from_numpy(hit.nonzero()[0][:6])
    image = data.x.dim() == 4 and data.shape[0] in (1, 3)
    if not image or len(chosen) == 0 or (task.store.folder / "contact-sheet.svg").exists():
        return
    frame = judged.rows.iloc[chosen.numpy()]
    contact_sheet(
        task.store.folder,
        data.x[part[chosen]],
        judged.adversarial.cpu()[chosen],
        [manifest.data.classes[int(label)] for label in frame["label"]],
        [manifest.data.classes[int(label)] for label in frame["prediction"]],
        data.ids[part[chosen]].tolist(),
        (float(data.lower.min()), float(data.upper.max())),
        f"{manifest.model.name} on {manifest.data.name}, {manifest.protocol.threat.norm} "
        f"eps {manifest.protocol.threat.eps:g}",
    )
