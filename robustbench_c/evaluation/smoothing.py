"""A run of randomised smoothing: of the smoothed classifier g, in a record of its own.

The record's subject is g (its hash is made of f's and of sigma) and its protocol is of another
kind than any of f's, so nothing that is said of g can be resumed, merged or ranked with what is
said of f. Step `clean` is the vote of the selection draws, step `smoothing` CERTIFY and PREDICT
on the estimation draws of the samples where the label won that vote.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import JsonValue, ValidationError
from torch import Tensor, nn

from attacks.classifier import TiledClassifier, exact_passes, prepare
from attacks.threat import ThreatModel
from certify.smoothing import SmoothingConfig
from certify.voting import Purpose, Votes, vote
from leaderboards.canonical import sha256_json
from leaderboards.manifest import ModelInfo, Protocol, StepInfo, explain
from leaderboards.sample_ids import Ids
from leaderboards.store import RunStore, is_run
from leaderboards.verdicts import CLEAN_STEP, RULES_VERSION
from robustbench_c.data import Dataset
from robustbench_c.errors import UsageError
from robustbench_c.evaluation.inputs import chance_notice, check_data, check_logits
from robustbench_c.evaluation.manifests import manifest_of
from robustbench_c.evaluation.passes import passes_of
from robustbench_c.evaluation.removal import remove_run
from robustbench_c.evaluation.rooms import is_tight
from robustbench_c.evaluation.run import Run
from robustbench_c.evaluation.sharing import Progress, Report, cut, finish, shard_size, work_off
from robustbench_c.evaluation.smoothing_rows import estimation_rows, selection_rows
from robustbench_c.evaluation.subject import model_info, subject
from robustbench_c.evaluation.task import places_of, right_ids
from robustbench_c.evaluation.threats import threat_info
from robustbench_c.leases import Leases
from robustbench_c.run_log import logged
from robustbench_c.zoo.devices import moved, parse_device
from robustbench_c.zoo.loading import LoadedModel
from robustbench_c.zoo.sources import watch

SMOOTHING = "smoothing"
"""Name of the step."""
SMOOTHING_VERSION = 1


@dataclass(frozen=True, eq=False)
class _Smoothed:
    """What the steps work on: the record, the samples on the model's device, and f."""

    store: RunStore
    leases: Leases
    data: Dataset
    x: Tensor
    classifier: TiledClassifier
    config: SmoothingConfig
    eps: float
    seed: int

    def places(self, ids: Ids) -> Tensor:
        """Return where samples lie in the data, in the order of `ids`."""
        return places_of(self.data, ids)

    def vote(self, part: Tensor, purpose: Purpose, report: Callable[[int], None]) -> Votes:
        """The votes for the samples at the places `part`."""
        draws = self.config.n0 if purpose == "selection" else self.config.n
        x, ids = self.x[part.to(self.x.device)], self.data.ids[part]
        return vote(self.classifier, x, ids, self.config.sigma, draws, self.seed, purpose, report)


def smooth(
    model: nn.Module | LoadedModel,
    data: Dataset,
    config: SmoothingConfig,
    *,
    eps: float = 0.0,
    seed: int = 0,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    out: Path | str = "runs",
    overwrite: bool = False,
    progress: Progress | None = None,
    start: float = 0.0,
) -> Run:
    """Certify the smoothed classifier of a model sample by sample and write the record of it.

    As `evaluate` does, a run that is on disk goes on where it stopped.

    Args:
        model: The base classifier f, in eval mode: (batch, *shape) to logits (batch, classes).
        data: The samples.
        config: Noise, draws and the probability of failure for each sample.
        eps: L2 radius, in units of the input, beyond which a sample's verdict is `certified`; at
            0 that is: g is proven to be right on the sample. Radii are on record at any eps.
        seed: Seed of the noise.
        batch_size: Most copies in one pass; None measures. Changes no result.
        device: Where to run.
        out: Folder of the runs.
        overwrite: Throw away the record of the same run, if there is one, and start afresh.
        progress: Called as samples finish; its last number counts certified samples.
        start: Of several calls that share a folder: where this one begins, in [0, 1), as of
            `evaluate`.

    Raises:
        SmoothingError: `config.n` draws cannot certify a radius beyond `eps`.
        AttackError: `eps` is not a radius.
        DataError: Data outside of their box, or of the wrong form.
        ModelError: A model that cannot be evaluated (also `attacks.errors.ClassifierError`).
        RecordError, RunError: The record cannot be written, or another run is in its place.
        UsageError: A record cannot hold an argument.
    """
    threat = ThreatModel("l2", float(eps), data.lower, data.upper)
    config.check_reach(threat.eps)
    check_data(data)
    loaded, target = subject(model), parse_device(device)
    loaded.module.to(target)
    with exact_passes():
        x = moved(data.x, target)
        classifier = prepare(loaded.module, x, batch_size)
        logits = classifier.logits(x)
    check_logits(logits, data)
    step = StepInfo(
        name=SMOOTHING, kind="certificate", version=SMOOTHING_VERSION, parameters=asdict(config)
    )
    protocol = Protocol(threat=threat_info(threat), steps=(step,), rules=RULES_VERSION)
    try:
        manifest = manifest_of(
            smoothed_info(loaded, config),
            data,
            protocol,
            ("smoothed", loaded.name, data.name, f"sigma-{config.sigma:g}"),
            classes=logits.shape[1],
            seed=seed,
            tiles=classifier.tiles,
            device=target,
            notices=_notices(loaded, classifier, logits, data),
        )
    except ValidationError as error:
        raise UsageError(f"a record cannot hold this run: {explain(error)}") from error
    folder = Path(out) / manifest.run_id
    if overwrite and is_run(folder):
        remove_run(folder)
    resumed = is_run(folder)
    store = RunStore.create(folder, manifest)
    classifier.tiles = store.manifest.tiles
    with passes_of(store.manifest), logged(store, target, resumed):
        leases = Leases(store.folder, start=start, check=watch(loaded.sources))
        on = _Smoothed(store, leases, data, x, classifier, config, threat.eps, seed)
        _select(on, progress)
        _certify(on, progress)
        return Run(folder, store, finish(store, leases), resumed)


def smoothed_info(base: LoadedModel, config: SmoothingConfig) -> ModelInfo:
    """What a manifest says of the smoothed classifier of a model.

    Its hash is made of the base's and of the noise: g has no weights of its own. The base itself
    is described under `card`.
    """
    info = model_info(base)
    made_of: dict[str, JsonValue] = {
        "smoothing": "gaussian",
        "sigma": config.sigma,
        "base": info.sha256,
    }
    settings = f"sigma {config.sigma:g}, n0 {config.n0}, n {config.n}, alpha {config.alpha:g}"
    return ModelInfo(
        name=f"smoothed classifier of {info.name}, {settings}"[:500],
        architecture=f"majority of {info.architecture}"[:470] + f", sigma {config.sigma:g}",
        sha256=sha256_json(made_of),
        parameters=info.parameters,
        normalisation=info.normalisation,
        card=made_of | {"base_name": info.name, "base_card": info.card},
    )


def is_smoothed(store: RunStore) -> bool:
    """Whether a record is about a smoothed classifier."""
    return SMOOTHING in store.steps


def _notices(
    loaded: LoadedModel, classifier: TiledClassifier, logits: Tensor, data: Dataset
) -> tuple[str, ...]:
    lines = [*loaded.notices]
    if chance := chance_notice(logits.argmax(1).cpu() == data.y, data):
        lines.append(f"without noise: {chance}")
    if not classifier.invariant:
        lines.append(
            "a sample's bits depend on its place in a batch for this model on this machine: "
            "votes can change with the order of the samples"
        )
    return tuple(lines)


def _select(on: _Smoothed, progress: Progress | None) -> None:
    """Vote on every sample that has no row in `clean`."""

    def work(ids: Ids, report: Report) -> None:
        part, started = on.places(ids), time.perf_counter()
        votes = on.vote(part, "selection", lambda done: report(done, 0))
        rows = selection_rows(on.data.y[part], on.data.ids[part], votes, on.config.n0)
        rows["seconds"] = (time.perf_counter() - started) / len(part)
        on.store.write_shard(CLEAN_STEP, rows, is_tight(on.classifier))

    shards = cut(on.data.ids.numpy(), shard_size(on.store.manifest, on.config.n0))
    work_off(on.store, on.leases, CLEAN_STEP, shards, work, progress)


def _certify(on: _Smoothed, progress: Progress | None) -> None:
    """Certify every sample that the selection gave its label and that has no row yet."""

    def work(ids: Ids, report: Report) -> None:
        part, started = on.places(ids), time.perf_counter()
        votes = on.vote(part, "estimation", lambda done: report(done, 0))
        rows = estimation_rows(on.data.y[part], on.data.ids[part], votes, on.config, on.eps)
        rows["seconds"] = (time.perf_counter() - started) / len(part)
        on.store.write_shard(SMOOTHING, rows, is_tight(on.classifier))

    shards = cut(right_ids(on.store), shard_size(on.store.manifest, on.config.n))
    work_off(on.store, on.leases, SMOOTHING, shards, work, progress)
