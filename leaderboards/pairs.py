"""Two models on the same samples: which of them is right more often, and whether by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from leaderboards.errors import RecordError
from leaderboards.explained import clean_correct
from leaderboards.manifest import Manifest, Protocol
from leaderboards.settle import sample_verdicts
from leaderboards.statistics import mcnemar_exact
from leaderboards.store import RunStore
from leaderboards.verdicts import CLEAN_STEP, Verdict

_RIGHT = {
    "robust": {Verdict.CERTIFIED, Verdict.UNDECIDED},
    "certified": {Verdict.CERTIFIED},
}
"""Verdicts that count as right; `error` counts for nobody."""
_KINDS = {"robust": "attack", "certified": "certificate"}
"""The kind of step that a protocol needs for a rate to be of something."""
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


def right_by_rate(
    manifest: Manifest, frames: dict[str, pd.DataFrame], verdicts: pd.Series[str]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which samples count for each rate that a protocol speaks of.

    Args:
        manifest: Of the run.
        frames: The rows of every step.
        verdicts: Of every sample, by id; null where the run is not over.

    Returns:
        bool (n,) by `clean`, `robust` and `certified`, in the order of `verdicts`; `clean` alone
        where the run is not complete.
    """
    explained = manifest.protocol.explanation
    clean = frames[CLEAN_STEP].set_index("sample_id")
    found = clean_correct(clean, explained).reindex(verdicts.index, fill_value=False)
    right = {"clean": found.to_numpy(dtype=np.bool_)}
    return right if verdicts.isna().any() else right | right_by_verdict(manifest.protocol, verdicts)


def right_by_verdict(
    protocol: Protocol, verdicts: pd.Series[str]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the same for `robust` and `certified`, which the verdicts of a whole run decide."""
    return {
        rate: verdicts.isin([str(v) for v in _RIGHT[rate]]).to_numpy(dtype=np.bool_)
        for rate in rate_names(protocol)
        if rate in _RIGHT
    }


def rate_names(protocol: Protocol) -> dict[str, str]:
    """Return the rates that a protocol speaks of, and what each is called there."""
    kinds = {step.kind for step in protocol.steps}
    named = {} if protocol.explanation is None else _NAMES
    rates = ["clean", *(rate for rate, kind in _KINDS.items() if kind in kinds)]
    return {rate: named.get(rate, rate) for rate in rates}


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
    rights, pairs = (_right(first), _right(second)), []
    for rate, told in rate_names(a.protocol).items():
        x, y = (right[rate] for right in rights)
        only = int((x & ~y).sum()), int((y & ~x).sum())
        pairs.append(Pair(told, int(x.sum()), int(y.sum()), *only, mcnemar_exact(*only)))
    return a.data.samples, tuple(pairs)


def _right(store: RunStore) -> dict[str, npt.NDArray[np.bool_]]:
    frames = store.read_steps()
    verdicts = sample_verdicts(frames, store.manifest.data.sample_ids)["verdict"]
    if verdicts.isna().any():
        raise RecordError(f"{store.folder} is not complete: the same command goes on with it")
    return right_by_rate(store.manifest, frames, verdicts)
