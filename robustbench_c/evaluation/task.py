"""What the steps of a run work on, and what each of them has to do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from attacks.classifier import TiledClassifier
from attacks.memory import is_narrow
from attacks.threat import ThreatModel
from leaderboards.sample_ids import Ids
from leaderboards.store import RunStore
from leaderboards.verdicts import CLEAN_STEP, SETTLED
from robustbench_c.data import Dataset
from robustbench_c.evaluation.rooms import is_tight
from robustbench_c.evaluation.sharing import Progress
from robustbench_c.leases import Leases
from robustbench_c.zoo.sources import SourceFile, watch


@dataclass(frozen=True, eq=False)
class Task:
    """What the steps of a run work on.

    Attributes:
        store: The record; its clean step is complete.
        data: The samples, on the CPU.
        x: The same samples, on the model's device.
        y: Their classes, there too.
        threat: What the attacker may do, there too.
        classifier: The model in float32.
        precise: The model in float64, or None.
        seed: Seed of all noise.
        progress: Called as samples finish, or None.
        judge: Of a random model's mean, that over other draws; else None.
        start: Which part of each step this worker begins with, in [0, 1).
        compiled: The classifier with compiled gradients, for the attacks that ask for it.
        sources: The files that the model was read from.
    """

    store: RunStore
    data: Dataset
    x: Tensor
    y: Tensor
    threat: ThreatModel
    classifier: TiledClassifier
    precise: TiledClassifier | None
    seed: int
    progress: Progress | None = None
    judge: TiledClassifier | None = None
    start: float = 0.0
    sources: tuple[SourceFile, ...] = ()
    compiled: TiledClassifier | None = None

    @cached_property
    def leases(self) -> Leases:
        """Who works on what, beside whom."""
        return Leases(self.store.folder, start=self.start, check=watch(self.sources))

    def write(self, step: str, rows: pd.DataFrame) -> None:
        """Add rows to the record, which says so where memory was short as they were made."""
        narrow = is_tight(self.classifier, self.precise, self.judge, self.compiled)
        explained = self.store.manifest.protocol.explanation is not None
        if explained or self.store.kind(step) == "certificate":  # others have no chunks
            narrow = narrow or is_narrow()
        self.store.write_shard(step, rows, narrow)

    @cached_property
    def clean(self) -> Tensor:
        """Logits of the samples, (n, classes)."""
        return self.classifier.logits(self.x)

    def places(self, ids: Ids) -> Tensor:
        """Return where samples lie in `data`, in the order of `ids`."""
        return places_of(self.data, ids)


def places_of(data: Dataset, ids: Ids) -> Tensor:
    """Return where samples lie in `data`, in the order of `ids`."""
    own = data.ids.numpy()
    order = np.argsort(own)
    return torch.from_numpy(order[np.searchsorted(own[order], ids)])


def right_ids(store: RunStore) -> Ids:
    """Return the ids, ascending, of the samples that the clean step left open."""
    clean = store.read_step(CLEAN_STEP)
    return clean["sample_id"][clean["verdict"].isna()].to_numpy(dtype=np.int64)


def found_before(store: RunStore, step: str) -> pd.DataFrame:
    """Return the nearest adversarial examples that the steps before this one found.

    Returns:
        The rows by sample id, that of the smallest distance of each sample, with their `step`.
    """
    earlier = store.steps[: store.steps.index(step)]
    frames = [store.read_step(name).assign(step=name) for name in earlier]
    found = pd.concat(frames).set_index("sample_id")
    found = found[found["distance"].notna()].sort_values("distance", kind="stable")
    return found[~found.index.duplicated()].sort_index()


def settled_before(store: RunStore, step: str) -> pd.DataFrame:
    """Return the rows that settled samples in the steps before this one.

    Returns:
        The rows by sample id, the first of each sample, with their `step`.
    """
    earlier = store.steps[: store.steps.index(step)]
    frames = [store.read_step(name).assign(step=name) for name in earlier]
    found = pd.concat(frames).set_index("sample_id")
    found = found[found["verdict"].isin(SETTLED)]
    return found[~found.index.duplicated()].sort_index()
