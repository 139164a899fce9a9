"""One run: clean predictions, then attacks and proofs on what is left, written down as it comes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from attacks.classifier import TiledClassifier, exact_passes, prepare
from attacks.compiled import compiled
from attacks.losses import margin
from attacks.pgd import PGDConfig
from attacks.registry import AttackConfig
from attacks.suites import Suite
from attacks.threat import ThreatModel
from leaderboards.distances import distance_bounds
from leaderboards.draws import OTHER
from leaderboards.manifest import StepInfo, explain
from leaderboards.settle import sample_verdicts
from leaderboards.store import RunStore, is_run
from leaderboards.summary import Summary, summarise
from robustbench_c.data import Dataset, from_tensors
from robustbench_c.errors import RunError, UsageError
from robustbench_c.evaluation import artefacts, rooms
from robustbench_c.evaluation.attacking import attack_samples
from robustbench_c.evaluation.averaging import AveragedModel
from robustbench_c.evaluation.budgets import AttackBudget
from robustbench_c.evaluation.certifying import (
    Budget,
    Certifier,
    CertifyConfig,
    MakeCertifier,
    make_certifier,
    numbers_of,
)
from robustbench_c.evaluation.crosscheck import CrossCheck, cross_check
from robustbench_c.evaluation.diagnosing import diagnose_run
from robustbench_c.evaluation.inputs import (
    chance_notice,
    check_data,
    check_logits,
    immutable_notice,
)
from robustbench_c.evaluation.manifests import new_manifest
from robustbench_c.evaluation.passes import passes_of
from robustbench_c.evaluation.protocol_steps import (
    UNLIMITED,
    Proof,
    company_notices,
    is_compiled,
    protocol_steps,
)
from robustbench_c.evaluation.proving import prove_samples
from robustbench_c.evaluation.radius_plot import plot_radii
from robustbench_c.evaluation.removal import remove_run
from robustbench_c.evaluation.resuming import place_of
from robustbench_c.evaluation.sharing import Progress, finish
from robustbench_c.evaluation.steps import clean_fault, clean_rows, precise_form
from robustbench_c.evaluation.subject import subject
from robustbench_c.evaluation.task import Task
from robustbench_c.evaluation.threats import settled
from robustbench_c.run_log import logged
from robustbench_c.zoo.devices import moved, parse_device
from robustbench_c.zoo.loading import LoadedModel


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run and its record.

    Attributes:
        folder: Folder of the record.
        store: The record.
        summary: Counts, rates with their intervals, cost.
        resumed: Whether the run was on disk before.
        cross_check: What the comparison with auto_LiRPA gave, if it was asked for.
    """

    folder: Path
    store: RunStore
    summary: Summary
    resumed: bool
    cross_check: CrossCheck | None = None

    @property
    def distances(self) -> pd.DataFrame:
        """How near each sample's nearest adversarial example is, at least and at most.

        Indexed by sample id: `leaderboards.distances.distance_bounds`.
        """
        return distance_bounds(self.store.manifest, self.store.read_steps())

    @property
    def verdicts(self) -> pd.DataFrame:
        """Verdict and settling step of each sample, indexed by sample id."""
        frames = self.store.read_steps()
        return sample_verdicts(frames, self.store.manifest.data.sample_ids)


def evaluate(
    model: nn.Module | LoadedModel,
    data: Dataset | Tensor,
    y: Tensor | None = None,
    threat: ThreatModel | None = None,
    *,
    attack: AttackConfig | Suite | Literal["none"] | None = None,
    certify: CertifyConfig | None = None,
    budget: AttackBudget = UNLIMITED,
    seed: int = 0,
    batch_size: int | None = None,
    max_memory: int | None = None,
    device: torch.device | str = "auto",
    out: Path | str = "runs",
    resume: Path | str | None = None,
    save_adversarial: bool = False,
    overwrite: bool = False,
    protocol_name: str | None = None,
    diagnose: bool = True,
    notices: tuple[str, ...] = (),
    progress: Progress | None = None,
    start: float = 0.0,
    compile: bool = False,
    certifier: MakeCertifier = make_certifier,
) -> Run:
    """Evaluate a classifier sample by sample and write the record of it.

    The run's folder is named after what determines its results. If it is there, the run goes on
    where it stopped; if it is complete, its record is returned.

    A module given as such is known by its weights, its structure and the source of its classes, not
    by hooks or by functions held as attributes: give another `out` where only those differ.

    Args:
        model: A classifier in eval mode: (batch, *shape) to logits (batch, classes).
        data: A `Dataset`, or samples (n, *shape) inside the threat model's box.
        y: True classes (n,), with samples as a tensor.
        threat: What the attacker may do; its box is that of the data. Where it names no immutable
            features (None), those of the data's attributes are: a mask that is false everywhere
            frees them.
        attack: Settings of an attack (`attacks.registry`) or several (`attacks.suites`); the
            default is PGD-40 with 5 restarts. "none" for proofs alone.
        certify: What to prove of the samples that no attack broke; None for attacks alone.
        budget: What the attacks may spend, all of them together.
        seed: Seed of all noise.
        batch_size: Most samples in one pass; None measures. Changes no result.
        max_memory: Bytes that the process may hold at peak (on a CUDA device: that are allocated
            there); None: as many as it takes. Tiles and chunks of bounds become smaller.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        out: Folder of the runs.
        resume: Folder of a run to go on with, instead of `out`: refused if it is another.
        save_adversarial: Keep every adversarial example, for `robust-runs verify`.
        overwrite: Throw away the record of the same run, if there is one, and start afresh.
        protocol_name: Name of the protocol, where the settings come from a named one.
        diagnose: Look for signs that the attacks failed rather than that the model held
            (`attacks.diagnostics`), unless the record has them; without an attack there are none.
        notices: Lines to keep in the record for its readers.
        progress: Called as samples finish.
        start: Of several calls that share a folder: which part of each step this one begins with,
            in [0, 1). Each works on what no other does, and ends when all is done.
        compile: Search with gradients by `torch.compile`; the judge and proofs keep to the module
            as it is.
        certifier: Makes the prover of a model.

    Raises:
        AttackError: Settings or a threat model that are not legal.
        DataError: Data outside of their box, or of the wrong form.
        ModelError: A model that cannot be evaluated (also `attacks.errors.ClassifierError`), or
            that holds what the prover has no rule for: before the first sample is worked on.
        ContradictionError: A sample is certified and broken; the evidence is in the run's folder.
        RecordError, RunError: The record cannot be written, or another run is in its place.
        TooLittleMemoryError: Not even one sample fits into `max_memory`, or into what there is.
        UsageError: An argument is missing, or a record cannot hold it.
        CheckFailedError: An attack left the threat model, or auto_LiRPA's bounds contradict ours.
    """
    rooms.check_limit(max_memory)
    if threat is None:
        raise UsageError("give a threat model: attacks.threat.ThreatModel.box(norm, eps)")
    dataset = dataset_of(data, y, threat)
    check_data(dataset)
    threat = settled(threat, dataset)
    loaded = subject(model)
    target = parse_device(auto_device(device))
    loaded.module.to(target)
    config = None if attack == "none" else attack or PGDConfig()
    steps = protocol_steps(config, certify, threat, budget, compile)
    if compile and not any(is_compiled(step) for step in steps):
        raise UsageError("no attack here has gradients of its own to compile: leave out compile")
    if certify is not None and isinstance(loaded, AveragedModel):
        raise UsageError("no proof is about the mean of random draws: leave out the certificate")
    with exact_passes():
        x, labels = moved(dataset.x, target), moved(dataset.y, target)
        classifier = prepare(loaded.module, x, batch_size, max_memory)
        started = time.perf_counter()
        logits = classifier.logits(x)
        seconds = time.perf_counter() - started
        check_logits(logits, dataset)
        clean = clean_rows(logits, labels, dataset.ids, seconds)
        precise = precise_form(loaded.module, x, classifier.tiles)
        rooms.limit(precise, x, max_memory)
        prover = None if certify is None else certifier(loaded.module, x[:1])
        share = 1.0 if prover is None else rooms.share_for(max_memory, numbers_of(prover), target)
        search = compiled(classifier, x) if compile else None
        lines = [
            *loaded.notices,
            *notices,
            *company_notices(steps),
            *common_notices(classifier, precise, logits, dataset, threat),
            *rooms.notices((classifier, precise), share),
        ]
        judge = None
        if isinstance(loaded, AveragedModel):
            judge = TiledClassifier(loaded.other, classifier.tiles)
            judge.most = classifier.most
            other = judge.logits(x)
            clean[OTHER] = margin(other, labels).double().cpu().numpy()
            if torch.equal(other, logits):
                lines.append("the model is not random: other draws gave the same logits")
        try:
            manifest = new_manifest(
                loaded,
                dataset,
                threat,
                steps,
                classes=logits.shape[1],
                seed=seed,
                tiles=classifier.tiles,
                device=target,
                notices=tuple(lines),
                protocol_name=protocol_name,
                suite=config.name if isinstance(config, Suite) else None,
            )
        except ValidationError as error:
            raise UsageError(f"a record cannot hold this run: {explain(error)}") from error
    folder = place_of(manifest, out, resume)
    if prover is not None and not is_run(folder):
        with exact_passes(), rooms.kept_within(share):
            _try_out(prover, steps, x, labels, dataset, threat.to(target), seed)
    if overwrite and is_run(folder):
        remove_run(folder)
    resumed = is_run(folder)
    store = RunStore.create(folder, manifest)
    classifier.tiles = store.manifest.tiles
    if search is not None:
        search.tiles = classifier.tiles[-1:]
    recorded = store.read_step("clean")
    if fault := clean_fault(recorded, clean):
        raise RunError(f"{folder} is not about this model or these data: {fault}")
    for step in steps:
        if _breaks(step) and (save_adversarial or artefacts.kept(store, step.name)):
            artefacts.keep(store, step.name)
    if len(recorded) < len(dataset):
        store.write_shard("clean", clean, rooms.is_tight(classifier, judge))
    with (
        passes_of(store.manifest),
        logged(store, target, resumed),
        rooms.kept_within(share),
    ):
        task = Task(
            store,
            dataset,
            x,
            labels,
            threat.to(target),
            classifier,
            precise,
            seed,
            progress,
            judge,
            start,
            loaded.sources,
            search,
        )
        summarise(store)  # what contradicts itself is not gone on with
        for step in steps:
            if step.kind == "attack":
                attack_samples(task, step)
            elif prover is not None:
                prove_samples(task, step, prover)
        if diagnose:
            diagnose_run(task)
        run = Run(folder, store, finish(store, task.leases), resumed)
        if run.summary.radius or run.summary.distance:
            plot_radii(store, run.summary)
        if certify is None or not certify.cross_check:
            return run
        return replace(run, cross_check=cross_check(task))


def _breaks(step: StepInfo) -> bool:
    """Whether a step can find adversarial examples."""
    return step.kind == "attack" or Proof.of(step).finds


def _try_out(
    prover: Certifier,
    steps: tuple[StepInfo, ...],
    x: Tensor,
    y: Tensor,
    data: Dataset,
    threat: ThreatModel,
    seed: int,
) -> None:
    """Let each certificate bound one sample, so that what it has no rule for shows at once."""
    proofs = [Proof.of(step) for step in steps if step.kind == "certificate"]
    for method in dict.fromkeys(proof.method for proof in proofs):
        least = Budget(iterations=1, subproblems=1)
        try:
            prover.certify(method, x[:1], y[:1], data.ids[:1], threat, least, seed)
        except Exception as error:
            # one of the sample's own is written down when its turn comes
            if isinstance(getattr(error, "exit_code", None), int):
                raise


def auto_device(device: torch.device | str) -> torch.device | str:
    """What "auto" stands for here, or the device itself."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def dataset_of(data: Dataset | Tensor, y: Tensor | None, threat: ThreatModel) -> Dataset:
    """The samples in the one form that runs work on."""
    if isinstance(data, Dataset):
        if y is not None:
            raise UsageError("a Dataset has its own classes: give no y beside it")
        return data
    if y is None:
        raise UsageError("samples given as a tensor need their classes: evaluate(model, x, y, ...)")
    return from_tensors(data, y, lower=threat.lower, upper=threat.upper)


def common_notices(
    classifier: TiledClassifier,
    precise: TiledClassifier | None,
    logits: Tensor,
    data: Dataset,
    threat: ThreatModel,
) -> list[str]:
    """What a reader should know of the model and the data."""
    correct = logits.argmax(1).cpu() == data.y
    lines = [chance_notice(correct, data), immutable_notice(threat, data)]
    if not classifier.invariant:
        lines.append(
            "a sample's bits depend on its place in a batch for this model on this machine: "
            "verdicts can change with the order of the samples"
        )
    if precise is None:
        lines.append(
            "the model has no float64 form: broken samples were re-checked in float32 only"
        )
    return [line for line in lines if line is not None]
