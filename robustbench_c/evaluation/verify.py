"""Checking a run again: its own rules, its clean step, every stored example, every proof."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor, nn

from attacks.classifier import TiledClassifier, prepare
from attacks.driver import recheck
from attacks.losses import margin
from attacks.registry import kind_of
from leaderboards.diagnostics import read_diagnostics
from leaderboards.draws import OTHER
from leaderboards.errors import RecordError
from leaderboards.manifest import StepInfo
from leaderboards.store import RunStore
from leaderboards.verdicts import CLEAN_STEP, Verdict
from robustbench_c.data import Dataset
from robustbench_c.errors import DataError, ModelError
from robustbench_c.evaluation import artefacts
from robustbench_c.evaluation.averaging import AveragedModel, of_info
from robustbench_c.evaluation.certifying import MakeCertifier, make_certifier
from robustbench_c.evaluation.corrupting import check_corruptions
from robustbench_c.evaluation.diagnosing import differences
from robustbench_c.evaluation.explained_config import config_of
from robustbench_c.evaluation.explained_proving import make_boxes
from robustbench_c.evaluation.explained_run import MakeBoxes, explained_task
from robustbench_c.evaluation.explained_verify import prove_again as prove_explained
from robustbench_c.evaluation.explained_verify import replay
from robustbench_c.evaluation.manifests import same_machine
from robustbench_c.evaluation.passes import passes_of
from robustbench_c.evaluation.protocol_steps import attack_of
from robustbench_c.evaluation.reproving import claims, prove_again
from robustbench_c.evaluation.steps import MARGIN_TOLERANCE, clean_fault, clean_rows, precise_form
from robustbench_c.evaluation.subject import subject
from robustbench_c.evaluation.task import Task
from robustbench_c.evaluation.threats import searched, threat_of
from robustbench_c.zoo.devices import moved, parse_device
from robustbench_c.zoo.loading import LoadedModel

_OTHERWISE = "its example has another margin on other draws"
_DISTANCE_TOLERANCE = 1e-9
"""Relative: sums can be split differently on another machine."""


@dataclass(frozen=True)
class Verification:
    """What a check of a run gave.

    Attributes:
        problems: One line for each thing that does not hold; empty if all is well.
        kept: Whether the run kept its adversarial examples.
        replayed: Those that were replayed on the model.
        broken: Adversarial examples in the record.
        proved: Certificates that were proved again.
        certified: Certificates in the record; of a step that searches radii, those above 0.
    """

    problems: tuple[str, ...]
    kept: bool
    replayed: int
    broken: int
    proved: int
    certified: int


def verify(
    store: RunStore,
    model: nn.Module | LoadedModel,
    data: Dataset,
    device: torch.device | str = "cpu",
    prove: bool = False,
    certifier: MakeCertifier = make_certifier,
    boxes: MakeBoxes = make_boxes,
) -> Verification:
    """Check a run's bytes and rules, its clean step, and every stored adversarial example.

    Args:
        store: The record.
        model: The model that was evaluated.
        data: The whole set of data, or any part that holds the run's samples.
        device: Where to replay.
        prove: Whether to prove each certified sample again, by the method on record.
        certifier: Makes the prover of a model.
        boxes: Makes what bounds a model's explanations.

    Raises:
        ModelError: Not the run's model.
        DataError: Not the run's data, or not a threat model on them.
    """
    loaded, target = subject(model), parse_device(device)
    draws, judge = store.manifest.model.draws, None
    if draws is not None and loaded.sha256 == draws.base_sha256:
        loaded = of_info(loaded, draws)
    if isinstance(loaded, AveragedModel):
        judge = TiledClassifier(loaded.other, store.manifest.tiles)
    own = _samples(store, loaded, data)
    loaded.module.to(target)
    problems = store.verify_bytes()
    x, tiles = moved(own.x, target), store.manifest.tiles
    kept, replayed, broken, proved, certified = False, 0, 0, 0, 0
    with passes_of(store.manifest):
        classifier, y = TiledClassifier(loaded.module, tiles), moved(own.y, target)
        task = Task(
            store,
            own,
            x,
            y,
            threat_of(store.manifest.protocol.threat, own).to(target),
            classifier,
            precise_form(loaded.module, x, tiles),
            store.manifest.seed,
            judge=judge,
        )
        if store.manifest.protocol.explanation is not None:
            return _verify_explained(task, problems, boxes if prove else None)
        clean = clean_rows(classifier.logits(x), y, own.ids, 0.0)
        tolerance = MARGIN_TOLERANCE * float(clean["margin"].abs().max())
        prover = certifier(loaded.module, x[:1]) if prove else None
        try:
            if fault := clean_fault(store.read_step(CLEAN_STEP), clean):
                problems.append(fault)
            if store.manifest.protocol.corruption is not None:
                found, replayed = check_corruptions(task, tolerance)
                problems += found
                kept = True
            for step in store.manifest.protocol.steps:
                rows = store.read_step(step.name).set_index("sample_id")
                held = rows["distance"].notna() & step.minimal
                hit = rows[rows["verdict"].isin([Verdict.BROKEN]) | held]
                broken += len(hit)
                problems += _too_many_passes(task, step, rows)
                if artefacts.kept(store, step.name):
                    kept = True
                    found, count = _replay(task, step, hit, tolerance)
                    problems += found
                    replayed += count
                if step.kind == "certificate":
                    certified += len(claims(rows))
                    if prover is not None:
                        found, count = prove_again(task, step, prover, tolerance)
                        problems += found
                        proved += count
            problems += _diagnostics(task)
        except RecordError as error:
            problems.append(str(error))
    lines = tuple(dict.fromkeys(problems))
    return Verification(lines, kept, replayed, broken, proved, certified)


def _diagnostics(task: Task) -> list[str]:
    """What of the run's diagnostics the model does not give."""
    if read_diagnostics(task.store) is None:
        return []
    manifest = task.store.manifest
    classifier = prepare(task.classifier.module, task.x)  # with gradients by the way of the run
    classifier.tiles = manifest.tiles
    here = same_machine(manifest, task.x.device)
    return differences(replace(task, classifier=classifier), here)


def _verify_explained(task: Task, problems: list[str], boxes: MakeBoxes | None) -> Verification:
    """The same of a run about explanations; proved again where `boxes` is given."""
    store, module = task.store, task.classifier.module
    kept, replayed, broken, proved, certified = False, 0, 0, 0, 0
    try:
        config, info = config_of(store), store.manifest.protocol.explanation
        on = explained_task(task, config, 1 if info is None else info.k)
        clean = clean_rows(task.classifier.logits(task.x), task.y, task.data.ids, 0.0)
        if fault := clean_fault(store.read_step(CLEAN_STEP), clean):
            problems.append(fault)
        bounds = None if boxes is None else boxes(module, task.x[:1], config.explanation)
        for step in store.manifest.protocol.steps:
            rows = store.read_step(step.name).set_index("sample_id")
            bent = rows[rows["verdict"].isin([Verdict.BROKEN])]
            broken += len(bent)
            if artefacts.kept(store, step.name):
                kept = True
                found, count = replay(on, step, bent)
                problems += found
                replayed += count
            if step.kind == "certificate":
                certified += int(rows["verdict"].isin([Verdict.CERTIFIED]).sum())
                if bounds is not None:
                    found, count = prove_explained(on, step, bounds)
                    problems += found
                    proved += count
    except RecordError as error:
        problems.append(str(error))
    lines = tuple(dict.fromkeys(problems))
    return Verification(lines, kept, replayed, broken, proved, certified)


def _samples(store: RunStore, model: LoadedModel, data: Dataset) -> Dataset:
    """The samples of the run, in the order of their ids; an error unless all is the run's own."""
    manifest = store.manifest
    if model.sha256 != manifest.model.sha256:
        raise ModelError(
            f"{store.folder} is about a model of hash {manifest.model.sha256[:12]}, "
            f"'{model.name}' has {model.sha256[:12]}: give the model that was evaluated"
        )
    if data.sha256 != manifest.data.sha256:
        raise DataError(
            f"{store.folder} is about data of hash {manifest.data.sha256[:12]}, "
            f"'{data.name}' has {data.sha256[:12]}: give the data that were used"
        )
    place = {sample: row for row, sample in enumerate(data.ids.tolist())}
    wanted = manifest.data.sample_ids.tolist()
    if missing := [i for i in wanted if i not in place]:
        raise DataError(f"{data.name} does not hold sample {missing[0]} of the run")
    return data.subset([place[i] for i in wanted])


def _too_many_passes(task: Task, step: StepInfo, rows: pd.DataFrame) -> list[str]:
    """Samples on which an attack spent more forward passes than its settings can ask for."""
    protocol = task.store.manifest.protocol
    if step.kind != "attack" or protocol.corruption or protocol.transformation:
        return []
    config = attack_of(step)
    most = kind_of(config).passes(config, len(task.data.classes))
    over = [] if most is None else rows.index[rows["forwards"] > most].tolist()
    return [
        f"step {step.name}, sample {i}: more passes than the {most} of its settings" for i in over
    ]


def _same_on_others(
    task: Task, adversarial: Tensor, y: Tensor, rows: pd.DataFrame, tolerance: float
) -> Tensor:
    """Whether other draws of a random model give the margins on record; all true without."""
    if task.judge is None:
        return torch.ones(len(y), dtype=torch.bool)
    there = torch.tensor(rows[OTHER].tolist(), dtype=torch.float64)
    return (margin(task.judge.logits(adversarial), y).double().cpu() - there).abs() <= tolerance


def _replay(
    task: Task, info: StepInfo, rows: pd.DataFrame, tolerance: float
) -> tuple[list[str], int]:
    """Replay the stored examples of a step whose samples that have one are `rows`."""
    problems: list[str] = []
    replayed: set[int] = set()
    step, threat = info.name, searched(info, task.threat, task.data.shape)
    for examples in artefacts.read(task.store, step):
        ids = examples.ids
        if strangers := set(ids.tolist()) - set(rows.index):
            problems.append(
                f"step {step}, sample {min(strangers)}: an example, but it is not broken"
            )
            continue
        place = task.places(ids.numpy()).to(task.x.device)
        x, adversarial = task.x[place], examples.adversarial.to(task.x.device)
        if not torch.equal(examples.clean.to(task.x.device), x):
            problems.append(f"step {step}: the stored clean samples are not those of the data")
            continue
        y = task.y[place]
        check = recheck(task.classifier, task.precise, x, adversarial, y, threat)
        distance, margin = (
            torch.tensor(rows.loc[ids.tolist(), name].tolist(), dtype=torch.float64)
            for name in ("distance", "margin")
        )
        gap = (check.margin.cpu() - margin).abs()
        for bad, what in (
            (~check.legal, "its example is outside of the threat model"),
            (check.legal & ~check.broken, "its example is classified rightly"),
            (
                ~torch.isclose(check.distance.cpu(), distance, rtol=_DISTANCE_TOLERANCE, atol=0.0),
                "its example is not at its distance",
            ),
            (~(gap <= tolerance), "its example has another margin"),
            (~_same_on_others(task, adversarial, y, rows.loc[ids.tolist()], tolerance), _OTHERWISE),
        ):
            problems += [f"step {step}, sample {i}: {what}" for i in ids[bad.cpu()].tolist()]
        replayed |= set(ids.tolist())
    if missing := sorted(set(rows.index) - replayed):
        problems.append(
            f"step {step}: {len(missing)} broken samples without an example, such as {missing[0]}"
        )
    return problems, len(replayed)
