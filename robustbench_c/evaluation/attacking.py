"""The attack on every sample that is right, shard by shard, written down as it comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from attacks.classifier import TiledClassifier
from attacks.driver import missed
from attacks.pgd import PGDConfig, pgd
from attacks.threat import ThreatModel
from leaderboards.store import RunStore
from leaderboards.verdicts import Verdict
from robustbench_c.data import Dataset
from robustbench_c.evaluation import artefacts
from robustbench_c.evaluation.pictures import contact_sheet
from robustbench_c.evaluation.steps import Judged, attack_rows

Progress = Callable[[str, int, int, int], None]
"""Called with (step, samples finished, samples in all, samples broken)."""

PGD = "pgd"
"""Name of the step."""

_SHARD_SECONDS = 30.0
_SHARD_SAMPLES = 2000
_SHARD_BYTES = 1 << 29


@dataclass(frozen=True, eq=False)
class Attacked:
    """What an attack works on.

    Attributes:
        store: The record; its clean step is complete.
        data: The samples, on the CPU.
        x: The same samples, on the model's device.
        y: Their classes, there too.
        threat: What the attacker may do, there too.
        classifier: The model in float32.
        precise: The model in float64, or None.
    """

    store: RunStore
    data: Dataset
    x: Tensor
    y: Tensor
    threat: ThreatModel
    classifier: TiledClassifier
    precise: TiledClassifier | None


def attack_samples(on: Attacked, config: PGDConfig, seed: int, progress: Progress | None) -> None:
    """Run PGD on every sample that is right and has no row yet, in shards of a fair length."""
    clean = on.store.read_step("clean").set_index("sample_id")["verdict"]
    there = on.store.read_step(PGD)
    right = clean.reindex(on.data.ids.numpy()).isna().to_numpy()
    rows = np.flatnonzero(right & ~np.isin(on.data.ids.numpy(), there["sample_id"]))
    total, finished = int(right.sum()), len(there)
    broken = int(there["verdict"].isin([Verdict.BROKEN]).sum())

    def report(done: int, hits: int) -> None:
        if progress is not None:
            progress(PGD, finished + done, total, broken + hits)

    size = _shard_size(on, config)
    for start in range(0, len(rows), size):
        part = torch.from_numpy(rows[start : start + size])
        report(0, 0)
        judged = _shard(on, part, config, seed, report)
        finished, broken = finished + len(part), broken + int(judged.broken.sum())
        _picture(on, part, judged)


def _misses(precise: TiledClassifier, adversarial: Tensor, y: Tensor) -> Tensor:
    """Which inputs are misclassified in float64 too."""
    return missed(precise.logits(adversarial.double()), y)


def _shard_size(on: Attacked, config: PGDConfig) -> int:
    worst = on.classifier.seconds * (config.steps + 1) * config.restarts
    samples = max(_SHARD_SECONDS / max(worst, 1e-9), on.classifier.tiles[-1])
    return max(1, int(min(samples, _SHARD_SAMPLES, _SHARD_BYTES // on.x[0].nbytes)))


def _shard(
    on: Attacked, part: Tensor, config: PGDConfig, seed: int, report: Callable[[int, int], None]
) -> Judged:
    """Attack the samples at the places `part`, and write them down."""
    ids, place = on.data.ids[part], part.to(on.x.device)
    x, y = on.x[place], on.y[place]
    result = pgd(
        on.classifier,
        x,
        y,
        ids,
        on.threat,
        config,
        seed,
        confirm=None if on.precise is None else partial(_misses, on.precise),
        progress=report,
    )
    judged = attack_rows(on.classifier, on.precise, x, y, ids, on.threat, result)
    hit = judged.broken
    if artefacts.kept(on.store, PGD) and bool(hit.any()):
        examples = artefacts.Examples(ids[hit.cpu()], x[hit], judged.adversarial[hit])
        artefacts.write(on.store, PGD, ids.numpy(), examples)
    on.store.write_shard(PGD, judged.rows)
    return judged


def _picture(on: Attacked, part: Tensor, judged: Judged) -> None:
    """Draw the first samples that broke, unless they were drawn before."""
    data, manifest = on.data, on.store.manifest
    chosen = judged.broken.nonzero()[:6, 0].cpu()
    image = data.x.dim() == 4 and data.shape[0] in (1, 3)
    if not image or len(chosen) == 0 or (on.store.folder / "contact-sheet.svg").exists():
        return
    frame = judged.rows.iloc[chosen.numpy()]
    contact_sheet(
        on.store.folder,
        data.x[part[chosen]],
        judged.adversarial.cpu()[chosen],
        [manifest.data.classes[int(label)] for label in frame["label"]],
        [manifest.data.classes[int(label)] for label in frame["prediction"]],
        data.ids[part[chosen]].tolist(),
        (float(data.lower.min()), float(data.upper.max())),
        f"{manifest.model.name} on {manifest.data.name}, {manifest.protocol.threat.norm} "
        f"eps {manifest.protocol.threat.eps:g}",
    )
