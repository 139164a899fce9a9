"""Numbers and sentences as the pages say them."""

from __future__ import annotations

from leaderboards.entries import Entry
from leaderboards.examples import keeps_examples
from leaderboards.manifest import ThreatInfo

NOTHING = "–"


def percent(share: float | None) -> str:
    """Return a share as a percentage without its sign: `72.88`."""
    return NOTHING if share is None else f"{100 * share:.2f}"


def number(value: float | None) -> str:
    """Return a number with four digits that count."""
    return NOTHING if value is None else f"{value:.4g}"


def signed(value: float | None) -> str:
    """Return the same with its sign."""
    return NOTHING if value is None else f"{value:+.4g}"


def count(value: float | None) -> str:
    """Return a whole number with its thousands set apart."""
    return NOTHING if value is None else f"{value:,.0f}"


def attacker(threat: ThreatInfo) -> str:
    """Return what an attacker may do, to follow "who may"."""
    unit = " of each feature's range" if threat.eps_unit == "range" else ""
    words = {
        "linf": f"change every input value by at most {threat.eps:g}{unit}",
        "l2": f"move the input by at most {threat.eps:g}{unit} in L2 norm",
        "l1": f"change the input by at most {threat.eps:g}{unit} in all (L1 norm)",
        "l0": f"change at most {threat.eps:g} features",
    }[threat.norm]
    return words + (" and none of the immutable features" if threat.immutable else "")


def sandwich_words(entry: Entry) -> list[str]:
    """Return what a run found, in sentences."""
    protocol, summary = entry.manifest.protocol, entry.summary
    found, n = summary.counts, summary.samples
    if not summary.complete:
        return [f"This run is not over: {count(found.not_run)} of {count(n)} samples were not run "
                "to the end, so only the clean accuracy of those begun is known."]  # fmt: skip
    if protocol.explanation is not None:
        return _explained_words(entry)
    clean = summary.clean_accuracy
    right = "" if clean is None else f", {count(clean.k)} are classified rightly as they are"
    words = [f"Of {count(n)} samples{right}.", _broken_words(entry)]
    robust, certified = summary.robust_accuracy, summary.certified_accuracy
    if protocol.corruption is not None and robust is not None:
        return [*words, f"{count(robust.k)} ({percent(robust.value)}%) are right under all."]
    if any(step.kind == "certificate" for step in protocol.steps):
        words.append(
            f"For {count(found.certified)} it is proved that no such attacker can succeed; "
            f"of {count(found.undecided)} neither is known."
        )
        words += [
            f"It is the smoothed classifier that is certified, each sample with a probability of "
            f"at least {1 - alpha:.6g}."
            for step in protocol.steps
            if "sigma" in step.parameters
            and isinstance(alpha := step.parameters.get("alpha"), float)
        ]
    else:
        words.append("Nothing was proved: a stronger search may break more.")
    if found.error:
        words.append(f"On {count(found.error)} a step failed: they count for nobody.")
    if robust is not None:
        least = 0.0 if certified is None else certified.value
        words.append(
            f"So on these samples the true robust accuracy is at least {percent(least)}% "
            f"and at most {percent(robust.value)}%."
        )
    return words


def example_words(entry: Entry) -> str:
    """Return what a run says of the examples by which it broke samples, and whether it has them."""
    kept = (
        "examples are stored with it, and can be replayed"
        if keeps_examples(entry.folder)
        else "the examples are not stored, so nobody can replay them"
    )
    return f"the record says that for each an example was found and checked again; {kept}"


def _broken_words(entry: Entry) -> str:
    protocol, broken = entry.manifest.protocol, entry.summary.counts.broken
    on_record = f": {example_words(entry)}" if broken else ""
    if protocol.corruption is not None:
        return f"{count(broken)} of them are wrong under some corruption."
    if protocol.transformation is not None:
        return f"A simple transformation breaks {count(broken)} of them{on_record}."
    return f"An attacker who may {attacker(protocol.threat)} breaks {count(broken)}{on_record}."


def _explained_words(entry: Entry) -> list[str]:
    protocol, summary = entry.manifest.protocol, entry.summary
    info, found = protocol.explanation, summary.counts
    if info is None:
        return []
    weights = ""
    if info.gamma:
        kind = " of its size" if info.gamma_relative else ""
        weights = f", and every weight by at most {info.gamma:g}{kind},"
    clean = summary.clean_accuracy
    right = "" if clean is None else f", {count(clean.k)} of them classified rightly"
    return [
        f"Of {count(summary.samples)} samples{right}, the {info.kind} of the {info.of} is "
        f"explained. It counts as bent when its {info.criterion.measure} distance from the clean "
        f"one exceeds {info.criterion.threshold:g}.",
        f"An attacker who may {attacker(protocol.threat)}{weights} bends {count(found.broken)} "
        "while the prediction stays.",
        f"For {count(found.certified)} it is proved that no such attacker can; of "
        f"{count(found.undecided)} neither is known.",
    ]
