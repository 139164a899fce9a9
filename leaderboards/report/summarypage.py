"""The first page: what was tested and found, in plain words, and what that does not say."""

from __future__ import annotations

from collections.abc import Iterator

from leaderboards.errors import one_line
from leaderboards.rates import Rate
from leaderboards.report.blocks import Alarm, Block, Facts, Points, Sandwich, Text
from leaderboards.report.subject import Subject
from leaderboards.report.words import interval, plural, share
from leaderboards.site.words import attacker, example_words

_FEW = 100
_NOTICES = 5


def summary_blocks(subject: Subject) -> Iterator[Block]:
    """Yield the page of summary of one run."""
    yield from alarms(subject)
    yield Text(_tested(subject))
    yield Points(tuple(_found(subject)))
    yield sandwich(subject)
    yield Text("What this does not say:")
    yield Points(tuple(_unsaid(subject)))
    yield Text("What exactly was tested, and by which rules (the details say more):")
    yield Facts(tuple(_marks(subject)))


def _marks(subject: Subject) -> Iterator[tuple[str, str]]:
    manifest = subject.manifest
    yield "Run", manifest.run_id
    yield "Weights, SHA-256", manifest.model.sha256
    yield "Data, SHA-256", manifest.data.sha256
    yield "Protocol, SHA-256", manifest.protocol_sha256
    steps = ", ".join(step.name for step in manifest.protocol.steps)
    yield "Steps", one_line(steps or "none but the clean one", 200)


def alarms(subject: Subject) -> Iterator[Block]:
    """Yield what keeps the run from being taken at its word."""
    manifest, summary = subject.manifest, subject.summary
    if not summary.complete:
        yield Alarm(
            f"NOT COMPLETE. {plural(summary.counts.not_run, 'sample')} of {summary.samples:,} were "
            "not run to the end, or an audit is missing. Nothing but the clean accuracy of the "
            "samples begun can be reported; the same command goes on with the run."
        )
    if summary.reliable is False:
        names = ", ".join(one_line(flag.name, 60) for flag in summary.flags or ())
        yield Alarm(
            "UNRELIABLE. There are signs that the attacks failed rather than that the model held "
            f"({names}): the empirical robust accuracy may be far too high. What is proved is not "
            "affected. See Diagnostics."
        )
    if not manifest.reproducible:
        yield Alarm(
            "NOT REPRODUCIBLE. A limit of time made the result depend on the speed of the machine, "
            "or an attack let samples influence one another: another run may find something else, "
            "and the run is not ranked."
        )
    if summary.complete and subject.entry.undiagnosed:
        yield Alarm(
            "NOT DIAGNOSED. Nobody looked whether its attacks failed, as the record has no "
            "diagnostics: the empirical robust accuracy may be far too high. What is proved is not "
            "affected."
        )
    if summary.counts.error:
        yield Alarm(
            f"ERRORS. A step failed on {plural(summary.counts.error, 'sample')} that no other step "
            "settled; none of them counts as robust where an attack failed."
        )
    if notices := (*summary.notices, *manifest.notices):
        shown = tuple(one_line(notice, 400) for notice in notices[:_NOTICES])
        more = len(notices) - len(shown)
        yield Text("Notices in the record:")
        yield Points(shown + ((f"and {more} more",) if more else ()))


def _tested(subject: Subject) -> str:
    manifest = subject.manifest
    model, data, threat = manifest.model, manifest.data, manifest.protocol.threat
    what = f"The model {subject.name} ({plural(model.parameters, 'parameter')})"
    samples = (
        f"{plural(data.samples, 'sample')} of {one_line(data.name, 80)} "
        f"({one_line(data.split, 40)}, {len(data.classes)} classes)"
    )
    if subject.changed:
        return f"{what} was tested on {samples} against {subject.kind}."
    low, high = data.box_lower[0], data.box_upper[1]
    box = f"Input values lie between {low:g} and {high:g}"
    uniform = data.box_lower[0] == data.box_lower[1] and data.box_upper[0] == data.box_upper[1]
    box += "." if uniform else ", each feature in its own range."
    if (info := manifest.protocol.explanation) is not None:
        weights = ""
        if info.gamma:
            kind = " of its size" if info.gamma_relative else ""
            weights = f", and every weight of the model by {info.gamma:g}{kind},"
        return (
            f"{what} was asked to explain its predictions on {samples} by the {info.kind} of the "
            f"{info.of}, against an attacker who may {attacker(threat)}{weights} and wants the "
            "explanation to change while the prediction stays. An explanation counts as bent when "
            f"its distance from the clean one ({criterion(subject)}) exceeds "
            f"{info.criterion.threshold:.4g}. {box}"
        )
    goal = "and wants another class to be predicted"
    if subject.smoothed:
        return (
            f"{what} was tested on {samples}: for each a radius in L2 was sought within which its "
            "prediction, a majority vote under Gaussian noise, stays right whatever an attacker "
            f"does. {box}"
        )
    against = f"an attacker who may {attacker(threat)} {goal}"
    return f"{what} was tested on {samples} against {against}. {box}"


def criterion(subject: Subject) -> str:
    """The measure of explanations, in words."""
    info = subject.manifest.protocol.explanation
    if info is None:
        return ""
    words = {
        "cosine": "1 - cosine similarity",
        "linf": "largest difference of an entry",
        "l2": "L2 norm of the difference",
        "l1": "L1 norm of the difference",
        "mean": "mean absolute difference",
        "top-k": f"share of the {info.criterion.k} largest entries that change place with others",
        "into-top-k": f"named features among the {info.criterion.k} largest entries",
        "out-of-top-k": f"named features not among the {info.criterion.k} largest entries",
    }[info.criterion.measure]
    return words + (", relative to the clean one" if info.criterion.relative else "")


def _found(subject: Subject) -> Iterator[str]:
    summary, counts = subject.summary, subject.summary.counts
    clean, n = summary.clean_accuracy, summary.samples
    if clean is not None:
        yield (
            f"Without an attack {clean.k:,} of {clean.n:,} samples are classified rightly: "
            f"{share(clean)} (95% interval {interval(clean)})."
        )
    if not summary.complete:
        return
    if summary.explanation is not None:
        yield from _explained(subject)
        return
    if subject.changed:
        yield from _changed(subject)
        return
    if subject.attacks:
        told = f": {example_words(subject.entry)}" if counts.broken else ""
        yield f"{counts.broken:,} of {n:,} were broken{told}."
    if subject.proofs:
        yield _proved(subject)
        yield _open(counts.undecided)
    else:
        yield "Nothing was proved: a stronger attack may break more."
    robust, certified = summary.robust_accuracy, summary.certified_accuracy
    if robust is not None and subject.attacks:
        least = f"at least {share(certified)} and " if certified is not None else ""
        yield (
            f"So the true robust accuracy on these samples is {least}at most {share(robust)}. For "
            "samples drawn as these were, the exact 95% intervals are "
            + (f"{interval(certified)} for the certified and " if certified is not None else "")
            + f"{interval(robust)} for the empirical robust accuracy."
        )
    elif certified is not None:
        yield f"So at least {share(certified)} (95% interval {interval(certified)}) are robust."


def _proved(subject: Subject) -> str:
    certified = subject.summary.counts.certified
    if not subject.smoothed:
        return f"For {certified:,} it is proved that no such attacker can succeed, by any attack."
    eps = subject.manifest.protocol.threat.eps
    alphas = {step.parameters.get("alpha") for step in subject.proofs} - {None}
    chance = ", ".join(f"{1 - float(alpha):g}" for alpha in alphas if alpha is not None)
    return (
        f"For {certified:,} a radius beyond {eps:g} is proved, each with probability {chance} at "
        "least over the noise that was drawn."
    )


def _changed(subject: Subject) -> Iterator[str]:
    """Of runs about changes that no adversary chooses within a ball."""
    summary, broken = subject.summary, subject.summary.counts.broken
    if (corruption := summary.corruption) is not None:
        yield (
            f"{broken:,} of {summary.samples:,} are right as they are and misclassified under some "
            f"corruption; {share(summary.robust_accuracy)} (95% interval "
            f"{interval(summary.robust_accuracy)}) are right under all that were tried."
        )
        if corruption.mean_accuracy is not None and corruption.worst_accuracy is not None:
            yield (
                "Over all kinds and severities the mean accuracy is "
                f"{corruption.mean_accuracy:.2%}; it is lowest under {corruption.worst_kind}: "
                f"{corruption.worst_accuracy:.2%}."
            )
    else:
        yield (
            f"A simple transformation breaks {broken:,} of {summary.samples:,}; "
            f"{share(summary.robust_accuracy)} (95% interval {interval(summary.robust_accuracy)}) "
            "are right under all that were tried."
        )
    yield "Nothing was proved: other changes, or others of the same kind, may break more."


def _open(undecided: int) -> str:
    if not undecided:
        return "No sample is left of which neither is known."
    return f"Of {undecided:,} neither is known: nothing broke them, and no proof succeeded."


def _explained(subject: Subject) -> Iterator[str]:
    found, counts, n = subject.summary.explanation, subject.summary.counts, subject.summary.samples
    if found is None:
        return
    if found.bent is not None:
        yield (
            f"An attack bent the explanations of {counts.broken:,} of {n:,} samples: "
            f"{share(found.bent)} (95% interval {interval(found.bent)})."
        )
    if found.certified is not None:
        yield (
            f"For {counts.certified:,} it is proved that no such attacker can bend the explanation "
            f"beyond the threshold: {share(found.certified)} (95% interval "
            f"{interval(found.certified)})."
        )
    yield _open(counts.undecided)
    if found.attack is not None and found.certificate is not None:
        yield (
            f"For half of the samples the attack got no further than {found.attack.median:.4g}; "
            f"for half of them the proof allows at most {found.certificate.median:.4g}."
        )


def sandwich(subject: Subject) -> Sandwich:
    """The picture of what was found."""
    summary = subject.summary
    if (found := summary.explanation) is not None:
        marks: list[tuple[str, Rate | None]] = [("certified stable", found.certified)]
        if found.bent is not None and summary.complete:
            held = summary.counts.certified + summary.counts.undecided
            marks.insert(0, ("not bent", Rate.of(held, summary.samples)))
        return Sandwich(summary.counts, tuple(marks), (("broken", "bent"),))
    robust = "right under all" if subject.changed else "empirical robust"
    marks = [
        ("clean", summary.clean_accuracy),
        (robust, summary.robust_accuracy if subject.attacks else None),
        ("certified", summary.certified_accuracy),
    ]
    return Sandwich(summary.counts, tuple((k, v) for k, v in marks if v is not None))


def _unsaid(subject: Subject) -> Iterator[str]:
    data = subject.manifest.data
    yield (
        "Anything about other attackers: larger changes, other norms, rotations, patches, poisoned "
        "training data or a replaced model are not covered."
    )
    yield (
        f"Anything about other data: the figures hold for {plural(data.samples, 'sample')} of one "
        "data set; where the inputs in use differ from it, they need not hold."
    )
    if subject.attacks and subject.manifest.protocol.explanation is not None:
        yield "That explanations no attack bent are stable: only those with a proof are."
    elif subject.attacks:
        yield (
            "That samples no attack broke are safe: only those with a proof are. The empirical "
            "figure is an upper bound."
        )
    if data.samples < _FEW:
        yield (f"Much about the population: {plural(data.samples, 'sample')} leave wide intervals.")
    yield "That the model is fit for a use: this report is about robustness alone."
