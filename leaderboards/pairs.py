"""Two models on the same samples: which of them is right more often, and whether by chance."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from leaderboards.errors import RecordError
from leaderboards.explained import clean_correct
from leaderboards.settle import sample_verdicts
from leaderboards.statistics import mcnemar_exact
from leaderboards.store import RunStore
from leaderboards.verdicts import CLEAN_STEP, Verdict

_RIGHT = {
    "clean": {Verdict.BROKEN, Verdict.CERTIFIED, Verdict.UNDECIDED},
    "robust": {Verdict.CERTIFIED, Verdict.UNDECIDED},
    "certified": {Verdict.CERTIFIED},
}
"""Verdicts that count as right; `error` counts for nobody."""
_NAMES = {"robust": "not bent"}
"""What a rate is called where explanations are the subject."""


@dataclass(frozen=True)
class Pair:
    """One rate of two models on the same samples.

    Attributes:
        rate: "clean", "robust" ("not bent" of explanations) or "certified".
        first: Samples that the first model gets right.
        second: Samples that the second gets right.
        only_first: Samples that only the first gets right.
        only_second: Samples that only the second gets right.
        p: Two-sided p-value of McNemar's exact test.
    """

    rate: str
    first: int
    second: int
    only_first: int
    only_second: int
    p: float


def compare(first: RunStore, second: RunStore) -> tuple[int, tuple[Pair, ...]]:
    """Compare two complete runs of the same protocol on the same samples.

    Returns:
        The number of samples, and one pair for each rate the protocol speaks of.

    Raises:
        RecordError: Other data, samples or protocols; a run that is not complete.
    """
    a, b = first.manifest, second.manifest
    if (a.data.sha256, a.data.ids) != (b.data.sha256, b.data.ids):
        raise RecordError(f"{first.folder} and {second.folder} are not about the same samples")
    if a.protocol_sha256 != b.protocol_sha256:
        raise RecordError(
            f"{first.folder} and {second.folder} were not run by the same protocol: "
            "their rates do not compare"
        )
    verdicts = _verdicts(first), _verdicts(second)
    kinds = {step.kind for step in a.protocol.steps}
    rates = ["clean", *(["robust"] if "attack" in kinds else [])]
    rates += ["certified"] if "certificate" in kinds else []
    explained, pairs = a.protocol.explanation, []
    for rate in rates:
        x, y = (v.isin([str(right) for right in _RIGHT[rate]]) for v in verdicts)
        if rate == "clean" and explained is not None:
            x, y = _correct(first), _correct(second)
        only = int((x & ~y).sum()), int((y & ~x).sum())
        told = rate if explained is None else _NAMES.get(rate, rate)
        pairs.append(Pair(told, int(x.sum()), int(y.sum()), *only, mcnemar_exact(*only)))
    return a.data.samples, tuple(pairs)


def _verdicts(store: RunStore) -> pd.Series[str]:
    frames = store.read_steps()
    found = sample_verdicts(frames, store.manifest.data.sample_ids)["verdict"]
    if found.isna().any():
        raise RecordError(f"{store.folder} is not complete: the same command goes on with it")
    return found


def _correct(store: RunStore) -> pd.Series[bool]:
    clean = store.read_step(CLEAN_STEP).set_index("sample_id")
    return clean_correct(clean, store.manifest.protocol.explanation)
