"""What pictures of explanations are drawn from: a few samples of a run, looked at again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from attacks.classifier import TiledClassifier
from attacks.threat import ThreatModel
from certify.explanation_metrics import worst_distance
from certify.interval import Interval
from leaderboards.sample_ids import Ids
from leaderboards.verdicts import Verdict
from robustbench_c.data import Dataset
from robustbench_c.evaluation.explained_attacking import bend_places, recheck
from robustbench_c.evaluation.explained_config import config_of, method_of
from robustbench_c.evaluation.explained_proving import Boxes, box_of, make_boxes
from robustbench_c.evaluation.explained_run import explained_task
from robustbench_c.evaluation.explained_task import ExplainedTask
from robustbench_c.evaluation.passes import passes_of
from robustbench_c.evaluation.run import Run
from robustbench_c.evaluation.steps import precise_form
from robustbench_c.evaluation.task import Task
from robustbench_c.evaluation.threats import threat_of
from robustbench_c.zoo.devices import moved, parse_device
from robustbench_c.zoo.loading import LoadedModel

_CURVE_SAMPLES = 64


@dataclass(frozen=True, eq=False)
class Looked:
    """Some samples of a run, on the CPU; all (n, ...).

    Attributes:
        ids: Sample ids.
        x: The samples.
        verdict: What the run says of each.
        explained: The class that is explained.
        clean: Its explanation.
        box: What holds every explanation, or None without a certificate.
        bent: The explanation that differs most, of those found; None without an attack.
    """

    ids: Ids
    x: Tensor
    verdict: list[str]
    explained: list[int]
    clean: Tensor
    box: Interval | None
    bent: Tensor | None


@dataclass(frozen=True, eq=False)
class EpsPoint:
    """Medians over a run's first samples at one radius; None where nothing was tried."""

    eps: float
    attack: float | None
    certificates: dict[str, float]
    samples: int


def task_again(run: Run, model: LoadedModel, data: Dataset) -> ExplainedTask:
    """What the steps of a run worked on, made again from its record."""
    store = run.store
    manifest, device = store.manifest, parse_device(store.manifest.device)
    x = moved(data.x, device)
    info = manifest.protocol.explanation
    task = Task(
        store,
        data,
        x,
        moved(data.y, device),
        threat_of(manifest.protocol.threat, data).to(device),
        TiledClassifier(model.module, manifest.tiles),
        precise_form(model.module, x, manifest.tiles),
        manifest.seed,
    )
    return explained_task(task, config_of(store), 1 if info is None else info.k)


def look_at(run: Run, model: LoadedModel, data: Dataset, count: int) -> Looked:
    """Look at a few samples again: the first ones of each verdict in turn."""
    verdicts = run.verdicts["verdict"]
    kinds = [
        verdicts.index[verdicts == kind].tolist()[:count]
        for kind in (Verdict.BROKEN, Verdict.CERTIFIED, Verdict.UNDECIDED)
    ]
    turns = [kind[i] for i in range(count) for kind in kinds if i < len(kind)]
    ids = np.sort(np.array(turns[:count], dtype=np.int64))
    with passes_of(run.store.manifest):
        on = task_again(run, model, data)
        part = on.task.places(ids).to(on.task.x.device)
        steps = run.store.manifest.protocol.steps
        proofs = [step for step in steps if step.kind == "certificate"]
        attacks = [step for step in steps if step.kind == "attack"]
        box, bent = None, None
        if proofs:
            boxes = make_boxes(on.model, on.task.x[:1], on.config.explanation)
            found, _ = box_of(on, boxes, method_of(proofs[-1]), part)
            box = Interval(found.lower.cpu(), found.upper.cpu())
        if attacks:
            judged = bend_places(on, attacks[0], part)
            bent = recheck(on, part, judged.adversarial, judged.weights).moved.cpu()
        return Looked(
            ids,
            on.task.x[part].cpu(),
            [str(verdicts.loc[i]) for i in ids],
            on.target[part].tolist(),
            on.clean(part).cpu(),
            box,
            bent,
        )


def eps_curve(
    run: Run, model: LoadedModel, data: Dataset, radii: tuple[float, ...]
) -> list[EpsPoint]:
    """Attack and bound a run's first samples at other radii.

    Args:
        run: The run, which says all but the radius.
        model: Its model.
        data: Its samples.
        radii: In the units of its own eps, ascending.
    """
    with passes_of(run.store.manifest):
        on = task_again(run, model, data)
        ids = np.sort(data.ids.numpy())[:_CURVE_SAMPLES]
        part = on.task.places(ids).to(on.task.x.device)
        boxes = make_boxes(on.model, on.task.x[:1], on.config.explanation)
        return [_at(on, run, boxes, replace(on.task.threat, eps=eps), part) for eps in radii]


def _at(on: ExplainedTask, run: Run, boxes: Boxes, threat: ThreatModel, part: Tensor) -> EpsPoint:
    there = replace(on, task=replace(on.task, threat=threat))
    certificates: dict[str, float] = {}
    attack = None
    for step in run.store.manifest.protocol.steps:
        if step.kind == "attack":
            judged = bend_places(there, step, part)
            found = recheck(there, part, judged.adversarial, judged.weights).lower
            attack = float(found.median())
        else:
            box, _ = box_of(there, boxes, method_of(step), part)
            bound = worst_distance(on.config.criterion, on.clean(part), box)
            certificates[method_of(step)] = float(bound.median())
    return EpsPoint(threat.eps, attack, certificates, len(part))
