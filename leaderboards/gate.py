"""The gate: did a model get worse than another on the same samples, beyond chance?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leaderboards.baseline import Baseline
from leaderboards.errors import NotComparableError
from leaderboards.pairs import rate_names
from leaderboards.rates import Rate
from leaderboards.statistics import holm, mcnemar_worse
from leaderboards.verdicts import RULES_VERSION

METRICS = ("clean", "robust", "certified")
Right = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Limits:
    """What makes a run fail.

    Attributes:
        alpha: A run that is no worse in any metric fails with this probability at most.
        tolerance: Drops of at most so many percentage points, as measured, do not fail.
        max_lost: More lost samples than this in one metric fail, by chance or not; None: no limit.
        metrics: Those that are gated; None: all that the protocol speaks of.
        flags: Whether a red flag that the baseline has not fails.
    """

    alpha: float = 0.05
    tolerance: float = 0.0
    max_lost: int | None = None
    metrics: tuple[str, ...] | None = None
    flags: bool = False


@dataclass(frozen=True)
class Metric:
    """One gated metric.

    Attributes:
        name: One of `METRICS`.
        told: What it is called: `robust` of explanations is "not bent".
        before: Of the baseline.
        after: Of the run.
        lost: Samples that only the baseline gets right.
        gained: Samples that only the run gets right.
        p: One-sided p-value of McNemar's exact test: that it is no worse.
        adjusted: The same after Holm's correction over all gated metrics.
        tolerated: It is significantly worse, but within the tolerance.
        failures: Why it fails; none if it does not.
    """

    name: str
    told: str
    before: Rate
    after: Rate
    lost: int
    gained: int
    p: float
    adjusted: float
    tolerated: bool
    failures: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """In one word."""
        return "regressed" if self.failures else "tolerated" if self.tolerated else "ok"


@dataclass(frozen=True)
class Flip:
    """A sample that one of the two gets right in a gated metric and the other does not.

    Attributes:
        sample_id: Its id.
        label: Name of its class.
        before: Verdict of the baseline.
        before_by: Step that settled it, if one did.
        after: Verdict of the run.
        after_by: Likewise.
        lost: What the metrics are called in which it is right no longer.
        gained: Those in which it is right now.
    """

    sample_id: int
    label: str
    before: str
    before_by: str | None
    after: str
    after_by: str | None
    lost: tuple[str, ...]
    gained: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What the gate found.

    Attributes:
        baseline: What was there before.
        run: What is there now.
        limits: As given.
        metrics: Those that were gated.
        flips: Samples that a failing metric lost, then other lost ones, then gained ones; each by
            ascending id.
        new_flags: Red flags that only the run has.
        notes: What a reader should know, a line each.
    """

    baseline: Baseline
    run: Baseline
    limits: Limits
    metrics: tuple[Metric, ...]
    flips: tuple[Flip, ...]
    new_flags: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """Why the run fails, a line each; none if it does not."""
        flags = (f"new red flag: {name}" for name in self.new_flags if self.limits.flags)
        return (*(line for metric in self.metrics for line in metric.failures), *flags)


def check(baseline: Baseline, run: Baseline, limits: Limits = Limits()) -> Outcome:
    """Compare a run with its baseline, sample by sample.

    Raises:
        NotComparableError: They say nothing about each other, or there is nothing to gate.
    """
    refuse_incomparable(baseline, run)
    names = rate_names(run.protocol)
    asked = tuple(names) if limits.metrics is None else limits.metrics
    if missing := [name for name in asked if name not in names]:
        raise NotComparableError(
            f"the protocol says nothing of {', '.join(missing)}; it has {', '.join(names)}"
        )
    if limits.flags and run.flags is None:
        raise NotComparableError("the run was not diagnosed, so nothing is known of its red flags")
    before, after = baseline.right(), run.right()
    metrics = judge({names[m]: (before[m], after[m]) for m in asked}, limits, asked)
    failing = {metric.told for metric in metrics if metric.failures}
    flips = _flips(baseline, run, {names[m]: (before[m], after[m]) for m in asked}, failing)
    new = set(run.flags or ()) - set(baseline.flags or ())
    notes = _notes(baseline, run, limits, len(metrics))
    return Outcome(baseline, run, limits, metrics, flips, tuple(sorted(new)), notes)


def judge(
    rights: dict[str, tuple[Right, Right]], limits: Limits, names: tuple[str, ...] = METRICS
) -> tuple[Metric, ...]:
    """Test each metric, and all of them together.

    A metric fails if its adjusted p-value is at most alpha and it dropped, as measured, by more
    than the tolerance. Whatever the metrics have to do with one another, a run that is no worse in
    any of them fails with probability alpha at most: McNemar's test is exact, Holm's correction
    holds under any dependence, and a tolerance only takes failures away.

    Args:
        rights: What a metric is called: which samples, bool (n,), count before and after.
        limits: As the user gives them.
        names: Of `METRICS`, in the same order.
    """
    lost = [int((before & ~after).sum()) for before, after in rights.values()]
    gained = [int((after & ~before).sum()) for before, after in rights.values()]
    ps = [mcnemar_worse(*both) for both in zip(lost, gained, strict=True)]
    metrics = []
    for i, (p, adjusted) in enumerate(zip(ps, holm(ps).tolist(), strict=True)):
        told, (before, after) = list(rights.items())[i]
        n, drop = before.size, 100 * (lost[i] - gained[i]) / before.size
        worse = adjusted <= limits.alpha
        failures = []
        if worse and drop > limits.tolerance:
            failures.append(
                f"{told}: {drop:.2f} points lower ({lost[i]} samples lost, {gained[i]} gained, "
                f"adjusted p {adjusted:.2g})"
            )
        if limits.max_lost is not None and lost[i] > limits.max_lost:
            failures.append(f"{told}: {lost[i]} samples lost, more than {limits.max_lost}")
        first, second = (Rate.of(int(right.sum()), n) for right in (before, after))
        if first is None or second is None:
            continue  # no samples
        metrics.append(
            Metric(
                name=names[i],
                told=told,
                before=first,
                after=second,
                lost=lost[i],
                gained=gained[i],
                p=p,
                adjusted=adjusted,
                tolerated=worse and drop <= limits.tolerance,
                failures=tuple(failures),
            )
        )
    return tuple(metrics)


def least_loss(alpha: float, metrics: int) -> int:
    """Return the fewest lost samples, with none gained, that make one of `metrics` fail."""
    return math.ceil(math.log2(metrics / alpha) - 1e-9)


def refuse_incomparable(baseline: Baseline, run: Baseline) -> None:
    """Raise NotComparableError, which says why, where a comparison would mean nothing."""
    old, new = baseline.data, run.data
    if old.sha256 != new.sha256:
        raise NotComparableError(
            f"other data: the baseline is about {old.name} {old.split} ({old.sha256[:12]}), "
            f"the run about {new.name} {new.split} ({new.sha256[:12]})"
        )
    if old.ids != new.ids:
        raise NotComparableError(
            f"other samples: {old.ids[:40]} in the baseline, {new.ids[:40]} in the run"
        )
    if {baseline.rules, run.rules} != {RULES_VERSION}:
        raise NotComparableError(
            f"other verdict rules: {baseline.rules} in the baseline, {run.rules} in the run, "
            f"{RULES_VERSION} in this version; make the baseline again from its run"
        )
    if baseline.protocol_sha256 != run.protocol_sha256:
        told = _difference(baseline.protocol.model_dump(), run.protocol.model_dump())
        raise NotComparableError(f"other protocols: {told}")
    if (baseline.classes() != run.classes()).any() or old.classes != new.classes:
        raise NotComparableError("the same data, but other labels: one of the two is not genuine")


def _difference(old: Any, new: Any, place: str = "") -> str:
    """The first thing in which two protocols differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) != new.get(key):
                return _difference(old.get(key), new.get(key), f"{place}.{key}".lstrip("."))
    if place == "steps":
        names = [[step["name"] for step in steps] for steps in (old, new)]
        if names[0] == names[1]:
            a, b = next((a, b) for a, b in zip(old, new, strict=True) if a != b)
            return _difference(a, b, f"step {a['name']}")
        old, new = (", ".join(each) or "none" for each in names)
    return f"{place} is {old} in the baseline, {new} in the run"


def _flips(
    baseline: Baseline, run: Baseline, rights: dict[str, tuple[Right, Right]], failing: set[str]
) -> tuple[Flip, ...]:
    before, after, classes = baseline.settled(), run.settled(), baseline.classes()
    lost = {told: old & ~new for told, (old, new) in rights.items()}
    gained = {told: new & ~old for told, (old, new) in rights.items()}
    flipped = np.any([*lost.values(), *gained.values()], axis=0)
    any_lost = np.any([*lost.values()], axis=0)
    failed = np.any([flipped & False, *(lost[told] for told in failing)], axis=0)
    first = 2 - any_lost.astype(int) - failed.astype(int)
    places = sorted(np.flatnonzero(flipped).tolist(), key=lambda i: int(first[i]))

    def by(step: Any) -> str | None:
        return step if isinstance(step, str) else None

    return tuple(
        Flip(
            sample_id=int(before.index[i]),
            label=baseline.data.classes[classes[i]],
            before=before["verdict"].iloc[i],
            before_by=by(before["settled_by"].iloc[i]),
            after=after["verdict"].iloc[i],
            after_by=by(after["settled_by"].iloc[i]),
            lost=tuple(told for told, where in lost.items() if where[i]),
            gained=tuple(told for told, where in gained.items() if where[i]),
        )
        for i in places
    )


def _notes(baseline: Baseline, run: Baseline, limits: Limits, metrics: int) -> tuple[str, ...]:
    n, least = run.data.samples, least_loss(limits.alpha, metrics)
    notes = [
        f"of {n} samples, at least {least} ({100 * least / n:.3g} points) have to be lost, and "
        "none gained, before a metric fails by the test"
        if least <= n
        else f"{n} samples are too few: the test cannot fail, however many are lost"
    ]
    old, new = baseline.identity_fields, run.identity_fields
    if old["model.sha256"] == new["model.sha256"]:
        notes.append("the weights of both are the same")
    told = [
        f"{name} ({old.get(name)} before, {new.get(name)} now)"
        for name in new
        if not name.startswith("model.") and old.get(name) != new.get(name)
    ]
    if told:
        notes.append(f"some samples can flip by chance, since the runs differ in {', '.join(told)}")
    for which, side in (("baseline", baseline), ("run", run)):
        if side.flags:
            notes.append(f"red flags of the {which}: {', '.join(side.flags)}")
    return tuple(notes)
