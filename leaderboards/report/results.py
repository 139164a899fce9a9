"""What was found: rates with intervals, verdicts, groups of samples, steps and their cost."""

from __future__ import annotations

from collections.abc import Iterator

from leaderboards.diagnostics import counted
from leaderboards.errors import one_line
from leaderboards.rates import Rate
from leaderboards.report.blocks import Alarm, Block, Points, Table, Text
from leaderboards.report.slices import by_class, by_margin, group_table, rate_titles
from leaderboards.report.subject import Subject
from leaderboards.report.words import NONE, duration, interval, number, plural, share
from leaderboards.summary import Reasons
from leaderboards.verdicts import CLEAN_STEP

_VERDICTS = {
    "certified": "proved: no attacker of this kind can succeed",
    "undecided": "neither broken nor proved within the budget",
    "broken": "an adversarial example was found and checked again",
    "wrong": "misclassified without an attack",
    "error": "a step failed and no other settled it",
    "not_run": "not run to the end",
}
_BENT = {
    "certified": "proved: no attacker of this kind can bend the explanation",
    "broken": "the explanation was bent beyond the threshold, and this was checked again",
}


def results(subject: Subject) -> Iterator[Block]:
    """Yield rates and verdicts."""
    entry, summary = subject.entry, subject.summary
    explanation = subject.manifest.protocol.explanation
    rows = []
    for name, title in rate_titles(subject.manifest.protocol).items():
        if name not in entry.right:
            continue
        rate = Rate.of(int(entry.right[name].sum()), summary.samples)
        if name == "clean":
            rate = summary.clean_accuracy
        counts = NONE if rate is None else f"{rate.k:,} of {rate.n:,}"
        rows.append((title, share(rate), interval(rate), counts))
    yield Table(
        ("rate", "value", "exact 95% interval", "samples"),
        tuple(rows),
        note="Intervals of Clopper and Pearson, for samples that are drawn as these were. "
        "Certified <= true <= empirical holds sample by sample.",
    )
    words = _VERDICTS | (_BENT if explanation is not None else {})
    if subject.changed:
        words |= {"broken": "right as it is, and misclassified when changed"}
    if explanation is not None:
        words.pop("wrong")
    told = summary.counts.model_dump()
    yield Table(
        ("verdict", "samples", "share", "what it means"),
        tuple(
            (
                "bent" if explanation and name == "broken" else name.replace("_", " "),
                f"{told[name]:,}",
                f"{told[name] / summary.samples:.2%}",
                meaning,
            )
            for name, meaning in words.items()
        ),
        last=True,
    )
    if reasons := _reasons(summary.undecided_by):
        yield Text(f"Of the undecided, by what the last proof said: {reasons}.")
    if (other := summary.other_draws) is not None and other.clean_accuracy is not None:
        held = other.held
        yield Text(
            f"On {other.count} other draws of the random model the clean accuracy is "
            f"{share(other.clean_accuracy)} (95% interval {interval(other.clean_accuracy)})"
            + (f", and {held.k} of {held.n} adversarial examples hold." if held else ".")
        )
    yield from _changed(subject)


def _reasons(reasons: Reasons | None) -> str:
    told = {} if reasons is None else reasons.model_dump()
    return ", ".join(f"{count} {name}" for name, count in told.items() if count)


def _changed(subject: Subject) -> Iterator[Block]:
    """Results of runs about changes in no norm ball."""
    summary = subject.summary
    if (corruption := summary.corruption) is not None:
        rows = tuple(
            (cell.kind, str(cell.severity), share(cell.accuracy), interval(cell.accuracy))
            for cell in corruption.cells
        )
        yield Table(("corruption", "severity", "accuracy", "95% interval"), rows)
        if corruption.mean_accuracy is not None and corruption.worst_accuracy is not None:
            yield Text(
                f"Mean accuracy over kinds and severities: {corruption.mean_accuracy:.2%}; worst "
                f"kind: {corruption.worst_kind}, {corruption.worst_accuracy:.2%}."
            )
    if (found := summary.transformation) is not None:
        families = tuple(
            (
                f.name,
                NONE if f.tried is None else f"{f.tried:,}",
                share(f.broken),
                interval(f.broken),
                number(f.median_strength),
                one_line(f.unit, 40),
            )
            for f in found.families
        )
        header = ("family", "tried on", "broken", "95% interval", "median strength", "unit")
        yield Table(header, families, last=True)


def groups(subject: Subject) -> Iterator[Block]:
    """Yield rates by class, by margin, and by the user's slices."""
    entry, clean = subject.entry, subject.frames[CLEAN_STEP]
    if not subject.summary.complete:
        yield Text("The run is not complete: only the clean accuracy of samples begun is known.")
    yield Text("By true class:")
    yield by_class(entry, clean)
    if (table := by_margin(entry, clean)) is not None:
        yield Text(
            "By the margin of the clean sample (logit of the label less the largest other), of the "
            "samples that are right:"
        )
        yield table
    if subject.slices is None:
        yield Text("No slices were given (--slices).")
    else:
        order = sorted(set(subject.slices))
        yield Text(f"By the slices that were given, {plural(len(order), 'slice')}:")
        yield group_table(entry, subject.slices, order, "slice")
    yield Text(
        "Groups are small: an interval that is wide says that little is known of the group, and "
        "of many groups some look good or bad by chance."
    )


def steps(subject: Subject) -> Iterator[Block]:
    """Yield which step settled how many samples, and at what cost."""
    summary = subject.summary
    bent = subject.manifest.protocol.explanation is not None
    rows = tuple(
        (step.name, step.kind, f"{step.samples:,}", f"{step.settled:,}", f"{step.broken:,}",
         f"{step.certified:,}", f"{step.errors:,}", f"{step.forwards:,}", f"{step.backwards:,}",
         f"{step.work:,}", duration(step.seconds))
        for step in summary.steps
    )  # fmt: skip
    found = ("ran on", "settled", "bent" if bent else "broken", "certified", "errors")
    header = ("step", "kind", *found, "forward", "backward", "subproblems", "time")
    note = (
        "Forward and backward: passes of one sample. Samples that were settled before may be "
        "looked at again, to check proofs against examples."
    )
    yield Table(header, rows, left=2, note=note)
    cost = summary.cost
    if cost.forwards_per_sample is not None and cost.backwards_per_sample is not None:
        yield Text(
            f"In all {cost.forwards_per_sample:.1f} forward and {cost.backwards_per_sample:.1f} "
            f"backward passes for each sample, {cost.work:,} subproblems and "
            f"{duration(cost.seconds)}."
        )


def diagnostics(subject: Subject) -> Iterator[Block]:
    """Yield signs that the attacks failed."""
    found, flags = subject.diagnostics, subject.summary.flags
    if subject.manifest.protocol.explanation is not None:
        yield Text(
            "None: diagnostics are about attacks on predictions. How far an attack on explanations "
            "falls short is bounded by the certificates above."
        )
        return
    if found is None or flags is None:
        yield Text(
            "Nobody looked for signs that the attacks failed: this record has no diagnostics. "
            "Whether the empirical figure rests on masked gradients is not known."
            if subject.attacks
            else "There were no attacks whose failure could be diagnosed."
        )
        return
    red = {flag.name for flag in flags}
    yield Text(
        f"Signs of masked gradients were looked for on {plural(len(found.looked_at), 'sample')}. "
        "A sign about samples is red where it holds of more than its limit of those that are "
        "neither proved nor broken by an attack that uses gradients."
    )
    if red:
        names = ", ".join(sorted(one_line(name, 60) for name in red))
        yield Alarm(f"Red flags: {names}. The empirical robust accuracy is not to be trusted.")
    rows = tuple(
        (one_line(sign.name, 60), one_line(sign.meaning, 200),
         NONE if sign.held is None else f"{held} of {samples}", f"{sign.limit:.0%}",
         "RED" if sign.name in red else "not known" if sign.held is None else "fine")
        for sign, held, samples in counted(
            found, subject.entry.settled, subject.manifest.protocol.steps
        )
    )  # fmt: skip
    yield Table(("sign", "what it says of a sample", "holds of", "limit", ""), rows, 2, last=True)
    if not red:
        yield Points(("No sign is red. That is no proof that the attacks were strong enough.",))
