"""Checking a run again from its files: the record's own rules, then every stored example."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attacks.classifier import TiledClassifier, exact_passes
from attacks.driver import in_float64, recheck
from attacks.threat import ThreatModel, feature_ranges
from leaderboards.sample_ids import parse_ids
from leaderboards.store import RunStore
from leaderboards.verdicts import Verdict
from robustbench_c.data import Dataset
from robustbench_c.errors import DataError, ModelError
from robustbench_c.evaluation import artefacts
from robustbench_c.zoo.loading import LoadedModel


@dataclass(frozen=True)
class Verification:
    """What a check of a run gave.

    Attributes:
        problems: One line for each thing that does not hold; empty if all is well.
        replayed: Stored adversarial examples that were replayed on the model.
        broken: Broken samples in the record.
    """

    problems: tuple[str, ...]
    replayed: int
    broken: int


def threat_of(store: RunStore, data: Dataset) -> ThreatModel:
    """The threat model of a run, rebuilt from its manifest and its data's box."""
    info = store.manifest.protocol.threat
    immutable = None
    if info.immutable:
        places = parse_ids(info.immutable)
        immutable = torch.zeros(data.shape, dtype=torch.bool)
        if places[-1] >= immutable.numel():
            raise DataError(f"{store.folder}: an immutable feature lies outside of the sample")
        immutable.view(-1)[torch.from_numpy(places)] = True
    ranged = info.eps_unit == "range"
    scale = feature_ranges(data.lower, data.upper, data.shape) if ranged else None
    return ThreatModel(info.norm, info.eps, data.lower, data.upper, immutable, scale)


def check_same(store: RunStore, model: LoadedModel, data: Dataset) -> None:
    """Raise unless model and data are those of the run.

    Raises:
        ModelError: Other weights.
        DataError: Another set of data.
    """
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


def verify(store: RunStore, model: LoadedModel, data: Dataset) -> Verification:
    """Check a run's bytes and rules, and replay every stored adversarial example.

    Args:
        store: The record.
        model: The model that was evaluated.
        data: The whole set of data, or any part that holds the run's samples.

    Raises:
        ModelError: Not the run's model.
        DataError: Not the run's data.
        RecordError: A file that cannot be read at all.
    """
    check_same(store, model, data)
    problems = store.verify_bytes()
    replayed = broken = 0
    for step in store.manifest.protocol.steps:
        if step.kind == "attack":
            found, count, total = _replay(store, step.name, model, data)
            problems += found
            replayed += count
            broken += total
    return Verification(tuple(problems), replayed, broken)


def _replay(
    store: RunStore, step: str, model: LoadedModel, data: Dataset
) -> tuple[list[str], int, int]:
    rows = store.read_step(step).set_index("sample_id")
    rows = rows[rows["verdict"].isin([Verdict.BROKEN])]
    stored = artefacts.read(store.folder, step)
    if stored is None:
        return [], 0, len(rows)
    ids, clean, adversarial = stored
    numbers = ids.tolist()
    if len(set(numbers)) < len(numbers) or set(numbers) != set(rows.index.tolist()):
        return (
            [f"step {step}: the stored examples are not those of the broken samples"],
            0,
            len(rows),
        )
    place = {int(sample): row for row, sample in enumerate(data.ids.tolist())}
    if missing := [i for i in numbers if i not in place]:
        raise DataError(f"{data.name} does not hold sample {missing[0]} of the run")
    own = torch.tensor([place[i] for i in numbers])
    if clean.shape[1:] != data.shape or not torch.equal(clean, data.x[own]):
        return [f"step {step}: the stored clean samples are not those of {data.name}"], 0, len(rows)
    labels, threat = data.y[own], threat_of(store, data)
    precise_module = in_float64(model.module, clean)
    tiles = store.manifest.tiles
    with exact_passes():
        check = recheck(
            TiledClassifier(model.module, tiles),
            TiledClassifier(precise_module, tiles) if precise_module else None,
            clean,
            adversarial,
            labels,
            threat,
        )
    problems = []
    recorded = rows.loc[numbers]
    far = torch.tensor(recorded["distance"].to_numpy()) != check.distance
    other = torch.tensor(recorded["label"].to_numpy()) != labels
    for bad, what in (
        (~check.legal, "its example is outside of the threat model"),
        (check.legal & ~check.broken, "its example is classified rightly"),
        (far, "its example is not at the recorded distance"),
        (other, "its recorded label is not that of the data"),
    ):
        problems += [f"step {step}, sample {i}: {what}" for i in ids[bad].tolist()]
    return problems, len(numbers), len(rows)
