"""One run: clean predictions, then the attack on what is left, all written down as it comes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from attacks.classifier import TiledClassifier, exact_passes, prepare
from attacks.driver import in_float64
from attacks.pgd import PGDConfig, pgd
from attacks.threat import ThreatModel
from leaderboards.settle import sample_verdicts
from leaderboards.store import RunStore, is_run
from leaderboards.summary import Summary
from robustbench_c.data import Dataset, from_tensors
from robustbench_c.errors import DataError, RunError
from robustbench_c.evaluation import artefacts
from robustbench_c.evaluation.inputs import chance_notice, check_box, check_logits
from robustbench_c.evaluation.manifests import new_manifest
from robustbench_c.evaluation.pictures import contact_sheet
from robustbench_c.evaluation.steps import Judged, attack_rows, clean_rows
from robustbench_c.evaluation.subject import subject
from robustbench_c.zoo.devices import parse_device
from robustbench_c.zoo.loading import LoadedModel

Progress = Callable[[str, int, int, int], None]
"""Called with (step, samples finished, samples in all, samples broken)."""

_SHARD_SECONDS = 30.0
_SHARD_SAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run and its record.

    Attributes:
        folder: Folder of the record.
        store: The record.
        summary: Counts, rates with their intervals, cost.
        resumed: Whether anything was on disk before.
    """

    folder: Path
    store: RunStore
    summary: Summary
    resumed: bool

    @property
    def verdicts(self) -> pd.DataFrame:
        """Verdict and settling step of each sample, indexed by sample id."""
        frames = {step: self.store.read_step(step) for step in self.store.steps}
        return sample_verdicts(frames, self.store.manifest.data.sample_ids)


def evaluate(
    model: nn.Module | LoadedModel,
    data: Dataset | Tensor,
    y: Tensor | None = None,
    threat: ThreatModel | None = None,
    *,
    attack: PGDConfig | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: torch.device | str = "auto",
    out: Path | str = "runs",
    save_adversarial: bool = False,
    overwrite: bool = False,
    protocol_name: str | None = None,
    notices: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> Run:
    """Evaluate a classifier sample by sample and write the record of it.

    The run's folder is named after what determines its results. If it is there, the run goes on
    where it stopped; if it is complete, its record is returned.

    Args:
        model: A classifier in eval mode: (batch, *shape) to logits (batch, classes).
        data: A `Dataset`, or samples (n, *shape) inside the threat model's box.
        y: True classes (n,), with samples as a tensor.
        threat: What the attacker may do; its box has to hold the data.
        attack: Settings of PGD; the default is PGD-40 with 5 restarts.
        seed: Seed of all noise.
        batch_size: Most samples in one pass; None measures. Changes no result.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        out: Folder of the runs.
        save_adversarial: Keep every adversarial example, for `robust-runs verify`.
        overwrite: Throw away the record of the same run, if there is one, and start afresh.
        protocol_name: Name of the protocol, where the settings come from a named one.
        notices: Lines to keep in the record for its readers.
        progress: Called as samples finish.

    Raises:
        DataError: Data outside of their box, or of the wrong form.
        ModelError: A model that cannot be evaluated (also `attacks.errors.ClassifierError`).
        RecordError: The record cannot be written, or another run is in its place.
        CheckFailedError: An attack left the threat model.
    """
    if threat is None:
        raise DataError("give a threat model: attacks.threat.ThreatModel.box(norm, eps)")
    dataset = _dataset(data, y, threat)
    threat.check_shape(dataset.shape)
    check_box(dataset, threat)
    loaded = subject(model)
    target = parse_device(_auto(device))
    loaded.module.to(target)
    config = attack or PGDConfig()
    with exact_passes():
        x, labels = dataset.x.to(target), dataset.y.to(target)
        classifier = prepare(loaded.module, x, batch_size)
        started = time.perf_counter()
        logits = classifier.logits(x)
        clean_seconds = time.perf_counter() - started
        check_logits(logits, dataset)
        precise_module = in_float64(loaded.module, x)
        lines = [*loaded.notices, *notices]
        lines += _notices(classifier, precise_module, logits, dataset)
        manifest = new_manifest(
            loaded,
            dataset,
            threat,
            config,
            classes=logits.shape[1],
            seed=seed,
            tiles=classifier.tiles,
            device=target,
            notices=tuple(lines),
            protocol_name=protocol_name,
        )
        folder = Path(out) / manifest.run_id
        resumed = folder.exists()
        if overwrite and resumed:
            _remove(folder)
            resumed = False
        store = RunStore.create(folder, manifest)
        classifier.tiles = store.manifest.tiles
        precise = TiledClassifier(precise_module, classifier.tiles) if precise_module else None
        if len(store.completed_ids("clean")) < len(dataset):
            store.write_shard("clean", clean_rows(logits, labels, dataset.ids, clean_seconds))
        _attack(
            store,
            classifier,
            precise,
            dataset,
            x,
            labels,
            threat.to(target),
            config,
            seed,
            save_adversarial,
            progress,
        )
    return Run(folder, store, store.write_summary(), resumed)


def _auto(device: torch.device | str) -> torch.device | str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _dataset(data: Dataset | Tensor, y: Tensor | None, threat: ThreatModel) -> Dataset:
    if isinstance(data, Dataset):
        return data
    if y is None:
        raise DataError("samples given as a tensor need their classes: evaluate(model, x, y, ...)")
    return from_tensors(data, y, lower=threat.lower, upper=threat.upper)


def _notices(
    classifier: TiledClassifier, precise: nn.Module | None, logits: Tensor, data: Dataset
) -> list[str]:
    correct = logits.argmax(1).cpu() == data.y
    lines = [chance_notice(correct, data)]
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


def _remove(folder: Path) -> None:
    if not is_run(folder):
        raise RunError(f"{folder} is no run: it is left as it is")
    shutil.rmtree(folder)


def _attack(
    store: RunStore,
    classifier: TiledClassifier,
    precise: TiledClassifier | None,
    data: Dataset,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    config: PGDConfig,
    seed: int,
    save_adversarial: bool,
    progress: Progress | None,
) -> None:
    """Attack every sample that is right and has no row yet, in shards of a fair length."""
    clean = store.read_step("clean").set_index("sample_id")["verdict"]
    ids = data.ids.numpy()
    right = clean.reindex(ids).isna().to_numpy()
    done = np.isin(ids, store.completed_ids("pgd"))
    rows = np.flatnonzero(right & ~done)
    total, before = int(right.sum()), int((right & done).sum())
    worst = classifier.seconds * (config.steps + 1) * config.restarts
    size = int(min(max(_SHARD_SECONDS / max(worst, 1e-9), classifier.tiles[-1]), _SHARD_SAMPLES))
    broken = 0
    for start in range(0, len(rows), size):
        part = torch.from_numpy(rows[start : start + size]).to(x.device)
        finished = before + start

        def report(done: int, hits: int, finished: int = finished, broken: int = broken) -> None:
            if progress is not None:
                progress("pgd", finished + done, total, broken + hits)

        report(0, 0)
        keys = data.ids[part.cpu()]
        result = pgd(classifier, x[part], y[part], keys, threat, config, seed, progress=report)
        judged = attack_rows(classifier, precise, x[part], y[part], keys, threat, result)
        if save_adversarial and bool(judged.broken.any()):
            hit = judged.broken
            artefacts.write(
                store.folder,
                "pgd",
                f"{int(keys.min())}-{int(keys.max())}-{len(keys)}",
                keys[hit.cpu()],
                x[part][hit],
                judged.adversarial[hit],
            )
        store.write_shard("pgd", judged.rows)
        broken += int(judged.broken.sum())
        if start == 0:
            _picture(store, data, part, keys, judged)


def _picture(store: RunStore, data: Dataset, part: Tensor, keys: Tensor, judged: Judged) -> None:
    chosen = judged.broken.nonzero()[:6, 0].cpu()
    if len(chosen) == 0 or data.x.dim() != 4 or data.shape[0] not in (1, 3):
        return
    frame = judged.rows.iloc[chosen.numpy()]
    contact_sheet(
        store.folder,
        data.x[part.cpu()[chosen]],
        judged.adversarial.cpu()[chosen],
        [data.classes[int(label)] for label in frame["label"]],
        [store.manifest.data.classes[int(label)] for label in frame["prediction"]],
        keys[chosen].tolist(),
        (float(data.lower.min()), float(data.upper.max())),
        f"{store.manifest.model.name}: {store.manifest.protocol.threat.norm} "
        f"eps {store.manifest.protocol.threat.eps:g}",
    )
