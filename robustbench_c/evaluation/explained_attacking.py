"""An attack on every explanation, shard by shard; every find is re-checked before it counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.driver import distances
from attacks.explained import ExplainedModel, Points
from attacks.explanation_attacks import attack_explanations, recheck_explanations
from attacks.explanation_driver import ExplanationRecheck
from attacks.explanation_result import ExplanationAttackResult
from attacks.losses import margin
from leaderboards.manifest import StepInfo
from leaderboards.sample_ids import Ids
from leaderboards.verdicts import Verdict
from robustbench_c.errors import CheckFailedError
from robustbench_c.evaluation.attacking import keep_examples
from robustbench_c.evaluation.explained_config import attack_of
from robustbench_c.evaluation.explained_task import ExplainedTask
from robustbench_c.evaluation.sharing import Report, cut, shard_size, work_off
from robustbench_c.evaluation.steps import Judged, frame_of, whole_where
from robustbench_c.evaluation.task import right_ids


@dataclass(eq=False)
class Bent(Judged):
    """The rows of an attack's step; `broken` says which explanations are bent.

    Attributes:
        weights: The models that bend them, by parameter, or None where none may change.
    """

    weights: Mapping[str, Tensor] | None


def bend_samples(on: ExplainedTask, step: StepInfo) -> None:
    """Attack the explanation of every sample that has no row yet."""
    task, name = on.task, step.name

    def work(ids: Ids, report: Report) -> None:
        part = task.places(ids)
        judged = bend_places(on, step, part, report)
        keep_examples(task, name, part, judged)
        task.write(name, judged.rows)

    shards = cut(right_ids(task.store), _shard_size(on, step))
    work_off(task.store, task.leases, name, shards, work, task.progress)


def bend_places(
    on: ExplainedTask,
    step: StepInfo,
    part: Tensor,
    report: Callable[[int, int], None] | None = None,
) -> Bent:
    """Attack the explanations of the samples at the places `part`, and re-check what is found.

    Raises:
        CheckFailedError: The attack left what it was allowed: a defect that stops the run.
    """
    task, config = on.task, on.config
    part = part.to(task.x.device)
    x, target = task.x[part], on.target[part]
    ids = task.data.ids[part.cpu()]
    result = attack_explanations(
        on.model,
        x,
        target,
        ids,
        on.threat,
        config.explanation,
        config.criterion,
        attack_of(step),
        task.seed,
        other=on.others(part),
        budget=config.budget,
        progress=report,
    )
    check = recheck(on, part, result.adversarial, result.weights)
    outside = result.found & ~check.legal
    if bool(outside.any()):
        raise CheckFailedError(
            f"the attack's point for sample {int(ids[int(outside.nonzero()[0])])} is outside of "
            "what it was allowed: a defect of the attack"
        )
    return _judge(on, part, result, check)


def recheck(
    on: ExplainedTask, part: Tensor, adversarial: Tensor, weights: Mapping[str, Tensor] | None
) -> ExplanationRecheck:
    """Measure afresh how far explanations are bent at these points."""
    config = on.config
    return recheck_explanations(
        on.model,
        on.precise,
        on.task.x[part],
        adversarial,
        on.target[part],
        on.threat,
        config.explanation,
        config.criterion,
        other=on.others(part),
        budget=config.budget,
        weights=weights,
    )


def holds(on: ExplainedTask, check: ExplanationRecheck) -> tuple[Tensor, Tensor]:
    """Which points count, and which of them bend beyond the threshold in both number formats."""
    counts = check.legal & check.kept & check.kept64 & check.distance.isfinite()
    counts &= check.distance64.isfinite() | check.distance64.isnan()
    return counts, counts & on.config.criterion.bent(check.lower)


def _judge(
    on: ExplainedTask, part: Tensor, result: ExplanationAttackResult, check: ExplanationRecheck
) -> Bent:
    y = on.task.y[part]
    logits = _logits(on, part, result)
    counts, bent = holds(on, check)
    failed = (result.not_finite & ~bent) | ~logits.isfinite().all(1)
    hit, known = bent.cpu().numpy(), (~failed).cpu().numpy()
    shown = (counts & ~failed).cpu().numpy()
    moved = (result.restart >= 0).cpu().numpy() & shown
    far = distances(on.task.x[part], result.adversarial, on.task.threat).cpu().numpy()
    verdict = np.select([hit, ~known], [str(Verdict.BROKEN), str(Verdict.ERROR)], "")
    rows = frame_of(
        on.task.data.ids[part.cpu()],
        y,
        verdict=[text or None for text in verdict.tolist()],
        prediction=whole_where(known, logits.argmax(1)),
        margin=np.where(known, margin(logits, y).double().cpu().numpy(), np.nan),
        distance=np.where(shown, far, np.nan),
        restart=whole_where(moved, result.restart),
        iteration=whole_where(moved, result.iteration),
        forwards=result.forwards.cpu().numpy(),
        backwards=result.backwards.cpu().numpy(),
        seconds=result.seconds.cpu().numpy(),
        detail=_details(result, on.config.criterion.bent(check.distance), counts, bent, failed),
        layout=on.task.store.layout,
        explanation_distance=np.where(shown, check.distance.cpu().numpy(), np.nan),
        explanation_distance64=np.where(shown, check.distance64.cpu().numpy(), np.nan),
    )
    return Bent(rows, bent, result.adversarial, result.weights)


def _logits(on: ExplainedTask, part: Tensor, result: ExplanationAttackResult) -> Tensor:
    if result.weights is None:
        return on.task.classifier.logits(result.adversarial)
    model = ExplainedModel(on.model, on.task.x[part], on.config.explanation, None)
    with torch.no_grad():
        return model.logits(Points(result.adversarial, result.weights))


def _details(
    result: ExplanationAttackResult, single: Tensor, counts: Tensor, bent: Tensor, failed: Tensor
) -> list[str | None]:
    """What is unusual about a row; `single` says what is bent in float32."""
    details: list[str | None] = []
    for found, far, legal, holds_, nan in zip(
        *(t.tolist() for t in (result.found, single, counts, bent, failed)), strict=True
    ):
        if nan:
            details.append("a logit, an explanation or a gradient was NaN or Inf")
        elif not legal:
            details.append("rounding: the prediction is not kept in both number formats")
        elif far and not holds_:
            details.append("rounding: bent in float32, not in float64")
        elif found and not holds_:
            details.append("not reproduced: it was not bent when it was measured again")
        else:
            details.append(None)
    return details


def _shard_size(on: ExplainedTask, step: StepInfo) -> int:
    config = attack_of(step)
    passes = 6 * on.config.explanation.steps * (config.steps + 1) * config.restarts
    return shard_size(on.task.store.manifest, passes)
