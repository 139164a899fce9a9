"""How runs about changes of the input in no norm ball begin: corruptions, transformations."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

from attacks.classifier import exact_passes, prepare
from attacks.threat import ThreatModel
from leaderboards.columns import layout_of
from leaderboards.manifest import Protocol, explain
from leaderboards.store import RunStore, is_run
from leaderboards.verdicts import CLEAN_STEP
from robustbench_c.data import Dataset
from robustbench_c.errors import RunError, UsageError
from robustbench_c.evaluation.inputs import check_data, check_logits
from robustbench_c.evaluation.manifests import manifest_of
from robustbench_c.evaluation.removal import remove_run
from robustbench_c.evaluation.rooms import is_tight
from robustbench_c.evaluation.run import common_notices
from robustbench_c.evaluation.sharing import Progress
from robustbench_c.evaluation.steps import clean_fault, clean_rows, precise_form
from robustbench_c.evaluation.subject import model_info, subject
from robustbench_c.evaluation.task import Task
from robustbench_c.zoo.devices import moved, parse_device
from robustbench_c.zoo.loading import LoadedModel


@dataclass(frozen=True)
class Begun:
    """A run whose clean step is complete.

    Attributes:
        task: What its steps work on.
        resumed: Whether it was on disk before.
    """

    task: Task
    resumed: bool


def whole_box(data: Dataset) -> ThreatModel:
    """The threat model that allows all of the box, and every feature to change."""
    width = float((data.upper.double() - data.lower.double()).max())
    own = data.immutable_mask
    free = None if own is None else torch.zeros_like(own)
    return ThreatModel("linf", width, data.lower, data.upper, free)


def begin(
    model: nn.Module | LoadedModel,
    data: Dataset,
    threat: ThreatModel,
    protocol: Protocol,
    words: tuple[str, ...],
    *,
    seed: int,
    batch_size: int | None,
    device: torch.device | str,
    out: Path | str,
    overwrite: bool,
    progress: Progress | None,
    start: float,
) -> Begun:
    """Check model and data, and begin the record, or take it up where it is on disk.

    Args:
        model: A classifier in eval mode: (batch, *shape) to logits (batch, classes).
        data: The samples.
        threat: `whole_box(data)`.
        protocol: What is done; its threat is the same.
        words: What the run's id says after model and data.
        seed: Seed of all noise.
        batch_size: Most samples in one pass; None measures. Changes no result.
        device: Where to run.
        out: Folder of the runs.
        overwrite: Throw away the record of the same run, if there is one, and start afresh.
        progress: Called as samples finish.
        start: Which part of each step this worker begins with, in [0, 1).

    Raises:
        DataError: Data outside of their box, or of the wrong form.
        ModelError: A model that cannot be evaluated (also `attacks.errors.ClassifierError`).
        RecordError, RunError: The record cannot be written, or another run is in its place.
        UsageError: A record cannot hold an argument.
    """
    check_data(data)
    loaded, target = subject(model), parse_device(device)
    loaded.module.to(target)
    with exact_passes():
        x, y = moved(data.x, target), moved(data.y, target)
        classifier = prepare(loaded.module, x, batch_size)
        started = time.perf_counter()
        logits = classifier.logits(x)
        seconds = time.perf_counter() - started
        check_logits(logits, data)
        precise = precise_form(loaded.module, x, classifier.tiles)
        notices = [*loaded.notices, *common_notices(classifier, precise, logits, data, threat)]
        info = model_info(loaded, x[:2])
    try:
        manifest = manifest_of(
            info,
            data,
            protocol,
            (loaded.name, data.name, *words),
            classes=logits.shape[1],
            seed=seed,
            tiles=classifier.tiles,
            device=target,
            notices=tuple(notices),
        )
    except ValidationError as error:
        raise UsageError(f"a record cannot hold this run: {explain(error)}") from error
    folder = Path(out) / manifest.run_id
    if overwrite and is_run(folder):
        remove_run(folder)
    resumed = is_run(folder)
    store = RunStore.create(folder, manifest)
    classifier.tiles = store.manifest.tiles
    layout = layout_of(protocol, logits.shape[1])
    clean = clean_rows(logits, y, data.ids, seconds, layout=layout)
    recorded = store.read_step(CLEAN_STEP)
    if fault := clean_fault(recorded, clean):
        raise RunError(f"{folder} is not about this model or these data: {fault}")
    if len(recorded) < len(data):
        store.write_shard(CLEAN_STEP, clean, is_tight(classifier))
    on = threat.to(target)
    task = Task(
        store,
        data,
        x,
        y,
        on,
        classifier,
        precise,
        seed,
        progress,
        start=start,
        sources=loaded.sources,
    )
    return Begun(task, resumed)
