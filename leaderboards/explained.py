"""What a run about explanations found: how far they were bent, and how far they can be at most."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from leaderboards.columns import BY_CLASS, BY_FEATURE, CERTAINTIES
from leaderboards.lists import largest
from leaderboards.manifest import Count, ExplanationInfo, Record, Text
from leaderboards.rates import Rate
from leaderboards.verdicts import Verdict

if TYPE_CHECKING:
    from leaderboards.store import RunStore

_LARGER_IS_BETTER = ("cosine", "top_k", "signs", "local_lipschitz_lower")


class Spread(Record):
    """Quantiles of one value over the samples; each is the value of a sample."""

    samples: Count
    """Samples that have the value."""
    q10: float
    """A tenth of them have at most this."""
    q25: float
    """A quarter."""
    median: float
    """Half."""
    q75: float
    """Three quarters."""
    q90: float
    """Nine tenths."""

    @classmethod
    def of(cls, values: pd.Series[float]) -> Spread | None:
        """Return the quantiles of what is finite, or null where nothing is."""
        found = values[np.isfinite(values.to_numpy(np.float64))]
        if found.empty:
            return None
        shares = {"q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9}
        quantiles = {k: float(found.quantile(q, "lower")) for k, q in shares.items()}
        return cls(samples=len(found), **quantiles)


class MonotoneShare(Record):
    """Of how many samples the explained score is proven to be monotone in a feature."""

    name: Text
    """Name of the feature."""
    increasing: Rate
    """Never falls as the feature grows; the better of all certificates."""
    decreasing: Rate
    """Never rises; a score that the feature does not matter to is both."""


class ExplanationSummary(Record):
    """How far explanations were bent, and how far they can be: attack <= truth <= certificate."""

    bent: Rate | None
    """Samples whose explanation was bent beyond the threshold; null while incomplete, or without
    an attack."""
    certified: Rate | None
    """Samples whose explanation is proven to stay within it; null likewise or without a proof."""
    undecided: Rate | None
    """Samples of which neither is known; null while incomplete."""
    attack: Spread | None
    """Largest distance that was found: a lower bound of the truth."""
    certificate: Spread | None
    """Smallest bound that was proved: an upper bound of the truth."""
    ratio: Spread | None
    """Certificate / attack, of the samples that have both and an attack above 0."""
    metrics: dict[Text, Annotated[float, Field()]]
    """Medians of what the boxes certify, the best of each sample, by the column's name; of local
    Lipschitz constants, the largest over the logits."""
    monotone: tuple[MonotoneShare, ...] | None = None
    """By feature; null while incomplete, or where none is asked for."""


def explained_values(frames: dict[str, pd.DataFrame], index: pd.Index[int]) -> pd.DataFrame:
    """Return what is known of each sample, the best of all steps.

    Returns:
        Indexed by sample id, NaN where nothing is known: `attack` (largest distance that holds in
        both number formats), `certificate` (smallest bound), the metrics of the boxes, and the
        largest local Lipschitz constant of a logit where there are some.
    """
    rows = pd.concat(list(frames.values())).set_index("sample_id")
    both = rows[["explanation_distance", "explanation_distance64"]].min(axis=1)  # NaN: no float64
    found = pd.DataFrame(index=index)
    found["attack"] = both.groupby(level=0).max().reindex(index)
    names = [column.name for column in CERTAINTIES]
    for column in BY_CLASS:
        if column.name in rows:
            rows[column.name] = largest(rows[column.name])
            names.append(column.name)
    for name in names:
        groups = rows[name].groupby(level=0)
        best = groups.max() if name in _LARGER_IS_BETTER else groups.min()
        found["certificate" if name == "explanation_bound" else name] = best.reindex(index)
    return found


def beyond_bound(frames: dict[str, pd.DataFrame], index: pd.Index[int]) -> npt.NDArray[np.bool_]:
    """Where an attack bent an explanation further than a certificate allows; bool (n,)."""
    if "explanation_bound" not in next(iter(frames.values())).columns:
        return np.zeros(len(index), dtype=np.bool_)
    found = explained_values(frames, index)
    return (found["attack"] > found["certificate"]).to_numpy(dtype=np.bool_)


def clean_correct(clean: pd.DataFrame, explanation: ExplanationInfo | None) -> pd.Series[bool]:
    """Which rows of the step `clean` are of samples that are classified rightly.

    Where explanations are the subject, misclassified samples carry no verdict of their own.
    """
    if explanation is None:
        return clean["verdict"].isna()
    right = (clean["prediction"] == clean["label"]).fillna(False).astype(bool)
    return right & clean["verdict"].isna()


def _monotone(
    explanation: ExplanationInfo, frames: dict[str, pd.DataFrame], n: int
) -> tuple[MonotoneShare, ...]:
    features = explanation.monotone
    both: dict[int, set[tuple[int, int]]] = {1: set(), -1: set()}  # of sample and feature
    for frame in frames.values():
        known = frame[frame[BY_FEATURE.name].notna()]
        for sample, signs in zip(known["sample_id"], known[BY_FEATURE.name], strict=True):
            for i, sign in enumerate(signs):
                for way in both:
                    if sign in (way, 2):
                        both[way].add((sample, i))
    counts = {way: Counter(i for _, i in found) for way, found in both.items()}
    shares = []
    for i, feature in enumerate(features):
        up, down = (Rate.of(counts[way][i], n) for way in (1, -1))
        if up is not None and down is not None:  # there are samples
            shares.append(MonotoneShare(name=feature.name, increasing=up, decreasing=down))
    return tuple(shares)


def explanation_summary(
    store: RunStore, frames: dict[str, pd.DataFrame], result: pd.DataFrame, complete: bool
) -> ExplanationSummary | None:
    """Return the part of a summary that is about explanations; null where predictions are."""
    explanation = store.manifest.protocol.explanation
    if explanation is None:
        return None
    values, n = explained_values(frames, result.index), len(result)

    def rate(verdict: Verdict) -> Rate | None:
        return Rate.of(int((result["verdict"] == verdict).sum()), n) if complete else None

    kinds = {store.kind(step) for step in frames}
    names = [c.name for c in (*CERTAINTIES, *BY_CLASS) if c.name in values]
    medians = {name: values[name].dropna() for name in names}
    moved = values["attack"].where(values["attack"] > 0)
    return ExplanationSummary(
        bent=rate(Verdict.BROKEN) if "attack" in kinds else None,
        certified=rate(Verdict.CERTIFIED) if "certificate" in kinds else None,
        undecided=rate(Verdict.UNDECIDED),
        attack=Spread.of(values["attack"]),
        certificate=Spread.of(values["certificate"]),
        ratio=Spread.of(values["certificate"] / moved),
        metrics={k: float(v.quantile(0.5, "lower")) for k, v in medians.items() if len(v)},
        monotone=_monotone(explanation, frames, n) if explanation.monotone and complete else None,
    )
