"""What the cells of a board hold, each worked out from one row."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from leaderboards.boards import Row
from leaderboards.errors import one_line
from leaderboards.explained import ExplanationSummary, Spread
from leaderboards.manifest import Manifest, Protocol, SizeInfo
from leaderboards.rates import Rate
from leaderboards.summary import Summary

Value = str | float | int | bool | datetime | None
Get = Callable[[Row], Value]
_LONGEST = 200


def line(words: str) -> str:
    """Return a stranger's words as one line that is not too long."""
    return one_line(words, _LONGEST)


def of_manifest(get: Callable[[Manifest], Value]) -> Get:
    """Return what reads a value from the manifest of a row."""
    return lambda row: get(row.entry.manifest)


def of_summary(get: Callable[[Summary], Value]) -> Get:
    """Return what reads a value from the summary of a row."""
    return lambda row: get(row.entry.summary)


def of_size(get: Callable[[SizeInfo], Value]) -> Get:
    """Return what reads a value from the size of a row's model; null in older records."""

    def value(row: Row) -> Value:
        size = row.entry.manifest.model.size
        return None if size is None else get(size)

    return value


def of_explanation(get: Callable[[ExplanationSummary], Value]) -> Get:
    """Return what reads a value of runs about explanations; null of others."""

    def value(row: Row) -> Value:
        found = row.entry.summary.explanation
        return None if found is None else get(found)

    return value


def median(spread: Spread | None) -> float | None:
    """Return the median of a spread, null where there is none."""
    return None if spread is None else spread.median


def rate_of(name: str, explained: bool) -> Callable[[Row], Rate | None]:
    """Return what reads a rate of rows that are about explanations, or that are not."""

    def get(row: Row) -> Rate | None:
        about = row.entry.manifest.protocol.explanation is not None
        return row.rates.get(name) if about == explained else None

    return get


def bent(row: Row) -> Rate | None:
    """Return the share of explanations that were bent; null of other runs."""
    found = row.entry.summary.explanation
    return None if found is None else found.bent


def subject(protocol: Protocol) -> str:
    """Return what runs of a protocol are about, in a word."""
    if protocol.explanation is not None:
        return "explanation"
    if protocol.corruption is not None:
        return "corruption"
    return "prediction" if protocol.transformation is None else "transformation"


def training(manifest: Manifest) -> str | None:
    """Return how the model was trained, as far as its card says: nobody checked it."""
    card, words = manifest.model.card or {}, []
    named = card.get("method") or card.get("recipe")  # older cards say no method
    if isinstance(named, str):
        words.append(named)
    if isinstance(threat := card.get("threat"), dict):
        norm, eps = threat.get("norm"), threat.get("eps")
        if isinstance(norm, str) and isinstance(eps, float):
            words.append(f"against {norm} {eps:g}")
    if isinstance(start := card.get("start"), str):
        words.append(f"from {start}")
    return line(", ".join(words)) or None


def attacks(manifest: Manifest) -> str | None:
    """Return the attacks of the protocol, null where it has none."""
    steps = manifest.protocol.steps
    return line(" + ".join(step.name for step in steps if step.kind == "attack")) or None


def verifier(manifest: Manifest) -> str | None:
    """Return the methods that prove, each once; null where the protocol has none."""
    proofs = [step for step in manifest.protocol.steps if step.kind == "certificate"]
    names = [str(step.parameters.get("method", step.name)) for step in proofs]
    return line(" + ".join(dict.fromkeys(names))) or None


def gap(row: Row) -> float | None:
    """Return the share of samples of which neither is known; null where one side is not."""
    robust, certified = row.rates.get("robust"), row.rates.get("certified")
    if robust is None or certified is None:
        return None
    return (robust.k - certified.k) / robust.n


def flags(summary: Summary) -> str | None:
    """Return the names of the red flags; null where it was not looked for them."""
    return None if summary.flags is None else " ".join(flag.name for flag in summary.flags)


def sparsity(size: SizeInfo) -> float | None:
    """Return the share of zeros among the weights that can be pruned."""
    return 1 - size.nonzero_weights / size.weights if size.weights else None
