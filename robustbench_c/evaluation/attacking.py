"""An attack on every sample that is open, shard by shard, written down as it comes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from attacks.classifier import TiledClassifier
from attacks.driver import missed
from attacks.losses import margin
from attacks.problem import Limits
from attacks.registry import AttackConfig, kind_of
from leaderboards.draws import OTHER
from leaderboards.manifest import StepInfo
from leaderboards.sample_ids import Ids
from leaderboards.verdicts import Verdict
from robustbench_c.evaluation import artefacts
from robustbench_c.evaluation.budgets import AttackBudget, limits_of, near_places, queries_left
from robustbench_c.evaluation.pictures import contact_sheet
from robustbench_c.evaluation.protocol_steps import attack_of, is_compiled
from robustbench_c.evaluation.sharing import Report, cut, shard_size, work_off
from robustbench_c.evaluation.steps import Judged, attack_rows
from robustbench_c.evaluation.task import Task, right_ids, settled_before
from robustbench_c.evaluation.threats import searched


def attack_samples(task: Task, step: StepInfo) -> None:
    """Attack what is open and has no row yet, in shards of a fair length.

    Whoever looks for nearest adversarial examples looks for those of all samples that are right.
    """
    threat, left = task.store.manifest.protocol.threat, right_ids(task.store)
    if not step.minimal:
        left = np.setdiff1d(left, settled_before(task.store, step.name).index)

    def attack(part: Tensor, report: Report) -> Judged:
        return search(task, part, step, limits_of(task, step, part), report)

    size = _shard_size(task, attack_of(step), AttackBudget.of(step))
    work_through(task, step.name, left, size, attack, f"{threat.norm} eps {threat.eps:g}")


def work_through(
    task: Task,
    name: str,
    wanted: Ids,
    size: int,
    attack: Callable[[Tensor, Report], Judged],
    title: str,
) -> None:
    """Run an attack on the samples that have no row yet, and write down what it finds.

    Args:
        task: What the run is on.
        name: The step.
        wanted: Samples it is about.
        size: Samples in a shard.
        attack: Of the places of some samples, and what to call with (finished, broken).
        title: Names the attacker in the picture.
    """

    def work(ids: Ids, report: Report) -> None:
        part = task.places(ids)
        judged = attack(part, report)
        if task.judge is not None:
            y = task.y[part.to(task.y.device)]
            judged.rows[OTHER] = _on_other_draws(task.judge, judged, y)
        keep_examples(task, name, part, judged)
        task.write(name, judged.rows)
        _picture(task, part, judged, title)

    work_off(task.store, task.leases, name, cut(wanted, size), work, task.progress)


def keep_examples(task: Task, name: str, part: Tensor, judged: Judged) -> None:
    """Write down the examples that were found at the places `part`, if the run keeps them."""
    hit = judged.broken
    if artefacts.kept(task.store, name) and bool(hit.any()):
        ids, clean = task.data.ids[part], task.x[part.to(task.x.device)[hit]]
        examples = artefacts.Examples(ids[hit.cpu()], clean, judged.adversarial[hit])
        artefacts.write(task.store, name, ids.numpy(), examples)


def search(
    task: Task,
    part: Tensor,
    step: StepInfo,
    limits: Limits,
    report: Report | None = None,
) -> Judged:
    """Attack the samples at the places `part` within limits, and re-check what is found."""
    ids, place, config = task.data.ids[part], part.to(task.x.device), attack_of(step)
    x, y, threat = task.x[place], task.y[place], searched(step, task.threat, task.data.shape)
    more = {"minimal": True} if step.minimal and kind_of(config).minimal == "asked" else {}
    classifier = task.compiled if is_compiled(step) else None
    result = kind_of(config).run(
        classifier or task.classifier,
        x,
        y,
        ids,
        threat,
        config,
        task.seed,
        confirm=in_float64_too(task),
        progress=report,
        limits=limits,
        **more,
    )
    eps = task.threat.eps
    judged = attack_rows(task.classifier, task.precise, x, y, ids, threat, result, eps)
    if (near := near_places(task, step, part)) is not None:
        far, left = ~near, queries_left(task, step, part)
        if left is not None:  # where the budget was spent, attacks might have come nearer
            far &= left > 0
        judged.rows.loc[far.numpy(), "detail"] = "far: no attack came near to break it"
    return judged


def in_float64_too(task: Task) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Says which inputs are misclassified in float64 too; None where there is no such form."""
    return None if task.precise is None else partial(_misses, task.precise)


def _misses(precise: TiledClassifier, adversarial: Tensor, y: Tensor) -> Tensor:
    return missed(precise.logits(adversarial.double()), y)


def _shard_size(task: Task, config: AttackConfig, budget: AttackBudget) -> int:
    passes = kind_of(config).passes(config, len(task.data.classes))
    if passes is None:  # foolbox: a tile's samples can hang on each other, so not by the clock
        return task.classifier.tiles[0]
    return shard_size(task.store.manifest, min(passes, budget.queries or passes))


def _on_other_draws(judge: TiledClassifier, judged: Judged, y: Tensor) -> np.ndarray:
    """Margins of the adversarial examples on draws that the attack has not seen; else NaN."""
    found, hit = np.full(len(y), np.nan), judged.broken
    if bool(hit.any()):
        gap = margin(judge.logits(judged.adversarial[hit]), y[hit])
        found[hit.cpu().numpy()] = gap.double().cpu().numpy()
    return found


def _picture(task: Task, part: Tensor, judged: Judged, title: str) -> None:
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
        f"{manifest.model.name} on {manifest.data.name}, {title}",
    )
