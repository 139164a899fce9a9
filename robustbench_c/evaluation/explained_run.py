"""A run about explanations: clean ones, how far attacks bend them, and how far any could."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from attacks.classifier import exact_passes, prepare
from attacks.explanations import Explanation
from attacks.threat import ThreatModel
from certify.steepness import Steepness
from leaderboards.manifest import Manifest, Protocol, explain
from leaderboards.store import RunStore, is_run
from leaderboards.summary import summarise
from leaderboards.verdicts import CLEAN_STEP, RULES_VERSION
from robustbench_c.data import Dataset
from robustbench_c.errors import RunError, UsageError
from robustbench_c.evaluation import artefacts, rooms
from robustbench_c.evaluation.explained_attacking import bend_samples
from robustbench_c.evaluation.explained_config import ExplainConfig, save_tensors
from robustbench_c.evaluation.explained_proving import (
    Boxes,
    bound_samples,
    entries_of,
    make_boxes,
)
from robustbench_c.evaluation.explained_task import (
    ExplainedTask,
    explained_clean_rows,
    runner_up,
)
from robustbench_c.evaluation.inputs import check_data, check_logits
from robustbench_c.evaluation.manifests import manifest_of
from robustbench_c.evaluation.passes import passes_of
from robustbench_c.evaluation.removal import remove_run
from robustbench_c.evaluation.resuming import place_of
from robustbench_c.evaluation.run import Run, auto_device, common_notices, dataset_of
from robustbench_c.evaluation.sharing import Progress, finish
from robustbench_c.evaluation.steps import clean_fault, precise_form
from robustbench_c.evaluation.subject import model_info, subject
from robustbench_c.evaluation.task import Task
from robustbench_c.evaluation.threats import settled, threat_info
from robustbench_c.run_log import logged
from robustbench_c.zoo.devices import moved, parse_device
from robustbench_c.zoo.loading import LoadedModel

MakeBoxes = Callable[[nn.Module, Tensor, Explanation], Boxes]
"""From a model, one sample (1, *shape) and what is explained to what bounds it."""


def evaluate_explanations(
    model: nn.Module | LoadedModel,
    data: Dataset | Tensor,
    y: Tensor | None = None,
    threat: ThreatModel | None = None,
    *,
    config: ExplainConfig | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    max_memory: int | None = None,
    device: torch.device | str = "auto",
    out: Path | str = "runs",
    resume: Path | str | None = None,
    save_adversarial: bool = False,
    overwrite: bool = False,
    notices: tuple[str, ...] = (),
    progress: Progress | None = None,
    start: float = 0.0,
    boxes: MakeBoxes = make_boxes,
) -> Run:
    """Say of every sample how far its explanation can be bent, and write the record of it.

    The class that is explained is the predicted one, right or wrong. As `evaluate` does, a run
    that is on disk goes on where it stopped.

    Args:
        model: A classifier in eval mode: (batch, *shape) to logits (batch, classes).
        data: A `Dataset`, or samples (n, *shape) inside the threat model's box.
        y: True classes (n,), with samples as a tensor.
        threat: What the attacker may do to an input; eps 0 for nothing.
        config: What is explained, when it counts as bent, what is tried and proved.
        seed: Seed of all noise.
        batch_size: Most samples in one pass; None measures. Changes no result.
        max_memory: As of `evaluate`.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        out: Folder of the runs.
        resume: Folder of a run to go on with, instead of `out`: refused if it is another.
        save_adversarial: Keep the inputs that bend explanations, for `robust-runs verify`. Weights
            are not kept: their attack is run again there.
        overwrite: Throw away the record of the same run, if there is one, and start afresh.
        notices: Lines to keep in the record for its readers.
        progress: Called as samples finish.
        start: As of `evaluate`.
        boxes: Makes what bounds a model's explanations.

    Raises:
        AttackError: Settings or a threat model that are not legal.
        DataError: Data outside of their box, or of the wrong form.
        ModelError: A model that cannot be evaluated, or that holds what there is no rule for.
        ContradictionError: An explanation was bent beyond what is proved; the evidence is in the
            run's folder.
        RecordError, RunError: The record cannot be written, or another run is in its place.
        TooLittleMemoryError: Not even one sample fits into `max_memory`, or into what there is.
        UsageError: An argument is missing, or a record cannot hold it.
        CheckFailedError: An attack left what it was allowed.
    """
    rooms.check_limit(max_memory)
    if threat is None:
        raise UsageError("give a threat model: attacks.threat.ThreatModel.box(norm, eps)")
    config = config or ExplainConfig()
    dataset = dataset_of(data, y, threat)
    check_data(dataset)
    threat = settled(threat, dataset)
    if threat.norm == "l0":
        raise UsageError("explanations are attacked and bounded in linf, l2 and l1, not in l0")
    info, steps = config.info(dataset.shape, dataset.feature_names), config.steps()
    loaded, target = subject(model), parse_device(auto_device(device))
    loaded.module.to(target)
    with exact_passes():
        x = moved(dataset.x, target)
        classifier = prepare(loaded.module, x, batch_size, max_memory)
        logits = classifier.logits(x)
        check_logits(logits, dataset)
        precise = precise_form(loaded.module, x, classifier.tiles)
        rooms.limit(precise, x, max_memory)
        # what there is no rule for shows before the first sample is worked on
        bounds = boxes(loaded.module, x[:1], config.explanation) if config.methods else None
        share = rooms.share_for(max_memory, entries_of(bounds), target)
        lines = [*loaded.notices, *notices]
        lines += common_notices(classifier, precise, logits, dataset, threat)
        lines += rooms.notices((classifier, precise), share)
    protocol = Protocol(
        threat=threat_info(threat), steps=steps, rules=RULES_VERSION, explanation=info
    )
    words = [loaded.name, dataset.name, config.explanation.kind, f"{threat.norm}-{threat.eps:g}"]
    words += [f"gamma-{config.budget.gamma:g}"] if config.budget is not None else []
    try:
        manifest = manifest_of(
            model_info(loaded, x[:2]),
            dataset,
            protocol,
            tuple(words),
            classes=logits.shape[1],
            seed=seed,
            tiles=classifier.tiles,
            device=target,
            notices=tuple(lines),
        )
    except ValidationError as error:
        raise UsageError(f"a record cannot hold this run: {explain(error)}") from error
    if config.lipschitz is not None:
        Steepness(loaded.module, x[:1], threat.to(target), logits.shape[1])
    store, resumed = _begin(place_of(manifest, out, resume), manifest, config, overwrite)
    classifier.tiles = store.manifest.tiles
    with (
        passes_of(store.manifest),
        logged(store, target, resumed),
        rooms.kept_within(share),
    ):
        started = time.perf_counter()
        on = explained_task(
            Task(
                store,
                dataset,
                x,
                moved(dataset.y, target),
                threat.to(target),
                classifier,
                precise,
                seed,
                progress,
                start=start,
                sources=loaded.sources,
            ),
            config,
            info.k,
        )
        _clean(on, started)
        for step in steps:
            if step.kind == "attack" and (save_adversarial or artefacts.kept(store, step.name)):
                artefacts.keep(store, step.name)
        summarise(store)  # what contradicts itself is not gone on with
        for step in steps:
            if step.kind == "attack":
                bend_samples(on, step)
            elif bounds is not None:
                bound_samples(on, step, bounds)
        return Run(store.folder, store, finish(store, on.task.leases), resumed)


def explained_task(task: Task, config: ExplainConfig, k: int) -> ExplainedTask:
    """Say which class of each sample is explained: the predicted one, as it is on record."""
    logits = task.classifier.logits(task.x)
    target = logits.argmax(1)
    recorded = task.store.read_step(CLEAN_STEP)
    if len(recorded):
        place = task.places(recorded["sample_id"].to_numpy()).to(target.device)
        known = torch.from_numpy(recorded["prediction"].to_numpy(dtype=np.int64, copy=True))
        target = target.clone()
        target[place] = known.to(target.device)
    other = runner_up(logits, target) if config.explanation.of == "margin" else None
    return ExplainedTask(task, config, k, target, other)


def _begin(
    folder: Path, manifest: Manifest, config: ExplainConfig, overwrite: bool
) -> tuple[RunStore, bool]:
    if overwrite and is_run(folder):
        remove_run(folder)
    resumed = is_run(folder)
    store = RunStore.create(folder, manifest)
    save_tensors(store, config.explanation)
    return store, resumed


def _clean(on: ExplainedTask, started: float) -> None:
    """Write the step `clean`, or compare it with what is on record.

    Raises:
        RunError: The record is about another model or other data.
    """
    task = on.task
    rows = explained_clean_rows(
        task.classifier.logits(task.x),
        task.y,
        task.data.ids,
        on.clean(torch.arange(len(task.x), device=task.x.device)),
        on.config.explanation.steps,
        time.perf_counter() - started,
        task.store.layout,
    )
    recorded = task.store.read_step(CLEAN_STEP)
    if fault := clean_fault(recorded, rows):
        raise RunError(f"{task.store.folder} is not about this model or these data: {fault}")
    if len(recorded) < len(task.data):
        task.write(CLEAN_STEP, rows)
