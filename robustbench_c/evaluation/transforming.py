"""A search over simple transformations in no norm ball: what breaks a sample, and how much of it.

Each family is a step, on all samples that are right as they are, broken by another or not: its rows
hold the smallest strength of the grid that does it. The last step tries random mixtures on what no
family breaks alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from attacks.transform_search import TransformConfig, transform_attack
from attacks.transformations import FAMILY, FamilyName, check_families, families_for
from leaderboards.manifest import Parameter, Protocol, StepInfo, TransformationInfo
from leaderboards.verdicts import RULES_VERSION
from robustbench_c.data import Dataset
from robustbench_c.evaluation import artefacts
from robustbench_c.evaluation.attacking import in_float64_too, work_through
from robustbench_c.evaluation.changing import begin, whole_box
from robustbench_c.evaluation.passes import passes_of
from robustbench_c.evaluation.run import Run
from robustbench_c.evaluation.sharing import Progress, Report, begun_at, finish
from robustbench_c.evaluation.steps import Judged, attack_rows
from robustbench_c.evaluation.task import Task, right_ids, settled_before
from robustbench_c.evaluation.threats import threat_info
from robustbench_c.run_log import logged
from robustbench_c.zoo.loading import LoadedModel

MIXTURE = "mixture"
"""Name of the step of random mixtures."""
TRANSFORMATION_VERSION = 1

_SHARD_SAMPLES = 256


def transformations(
    model: nn.Module | LoadedModel,
    data: Dataset,
    config: TransformConfig | None = None,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    out: Path | str = "runs",
    save_adversarial: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    start: float = 0.0,
) -> Run:
    """Search the weakest transformation of each family that breaks a sample, and write it down.

    As `evaluate` does, a run that is on disk goes on where it stopped.

    Args:
        model: A classifier in eval mode: (batch, *shape) to logits (batch, classes).
        data: The samples; what is no image, (C, H, W), has fewer families.
        config: Families and strengths.
        seed: Seed of the noise.
        batch_size: Most samples in one pass; None measures. Changes no result.
        device: Where to run.
        out: Folder of the runs.
        save_adversarial: Keep every sample that broke, transformed, for `robust-runs verify`.
        overwrite: Throw away the record of the same run, if there is one, and start afresh.
        progress: Called as samples finish; its last number counts those that broke.
        start: Of several calls that share a folder: where this one begins, in [0, 1), as of
            `evaluate`.

    Raises:
        AttackError: No such family, or not for these samples.
        DataError, ModelError, RecordError, RunError, UsageError: As `changing.begin`.
        CheckFailedError: A transformed sample left the box: a defect.
    """
    config = config or TransformConfig()
    families = config.families or families_for(data.shape)
    check_families(families, data.shape)
    threat = whole_box(data)
    alone = [_step(name, config.levels) for name in dict.fromkeys(families)]
    mixed = [_mixture(families, config)] if config.draws else []
    steps = (*alone, *mixed)
    protocol = Protocol(
        threat=threat_info(threat),
        steps=steps,
        rules=RULES_VERSION,
        transformation=TransformationInfo(levels=config.levels, draws=config.draws),
    )
    begun = begin(
        model,
        data,
        threat,
        protocol,
        ("transformations",),
        seed=seed,
        batch_size=batch_size,
        device=device,
        out=out,
        overwrite=overwrite,
        progress=progress,
        start=start,
    )
    task = begun.task
    for step in steps:
        if save_adversarial or artefacts.kept(task.store, step.name):
            artefacts.keep(task.store, step.name)
    with passes_of(task.store.manifest), logged(task.store, task.x.device, begun.resumed):
        for step in (*begun_at(start, alone), *mixed):  # of those alone none hangs on another
            _transform_samples(task, step, _settings(step, families, config))
        return Run(task.store.folder, task.store, finish(task.store, task.leases), begun.resumed)


def _step(name: FamilyName, levels: int) -> StepInfo:
    """A family as a step of a protocol, with its range."""
    family = FAMILY[name]
    parameters: dict[str, Parameter] = {
        "knowledge": "decision",
        "samples": "right",
        "levels": levels,
        "most": family.most,
        "unit": family.unit,
        "variants": family.variants,
    }
    return StepInfo(name=name, kind="attack", version=TRANSFORMATION_VERSION, parameters=parameters)


def _mixture(families: tuple[FamilyName, ...], config: TransformConfig) -> StepInfo:
    return StepInfo(
        name=MIXTURE,
        kind="attack",
        version=TRANSFORMATION_VERSION,
        parameters={
            "knowledge": "decision",
            "families": ",".join(families),
            "levels": config.levels,
            "draws": config.draws,
            "unit": "share of the strongest part's range",
        },
    )


def _settings(
    step: StepInfo, families: tuple[FamilyName, ...], config: TransformConfig
) -> TransformConfig:
    """What a step searches: one family's grid, or the mixtures of all."""
    if step.name == MIXTURE:
        return TransformConfig(config.levels, config.draws, families)
    return TransformConfig(config.levels, 0, (step.name,))  # type: ignore[arg-type]  # a family's


def _transform_samples(task: Task, step: StepInfo, config: TransformConfig) -> None:
    """Search on every sample of a step that has no row yet, in shards."""
    wanted = right_ids(task.store)
    if step.name == MIXTURE:
        wanted = np.setdiff1d(wanted, settled_before(task.store, step.name).index)

    def attack(part: Tensor, report: Report) -> Judged:
        return _search(task, part, config, report)

    title = f"simple transformations: {step.name}"
    work_through(task, step.name, wanted, _SHARD_SAMPLES, attack, title)


def _search(task: Task, part: Tensor, config: TransformConfig, report: Report) -> Judged:
    ids, place = task.data.ids[part], part.to(task.x.device)
    x, y = task.x[place], task.y[place]
    found = transform_attack(
        task.classifier,
        x,
        y,
        ids,
        task.threat.lower,
        task.threat.upper,
        config,
        task.seed,
        confirm=in_float64_too(task),
        progress=report,
    )
    judged = attack_rows(task.classifier, task.precise, x, y, ids, task.threat, found.search)
    hit = judged.broken.cpu().numpy()
    for column, value in (("strength", found.strength), ("strength_share", found.share)):
        judged.rows[column] = np.where(hit, value.cpu().numpy(), np.nan)
    return judged
