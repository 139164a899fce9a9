"""The gate: did a model get worse than another on the same samples, beyond chance?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from leaderboards.baseline import Baseline
from leaderboards.comparable import refuse_half_diagnosed, refuse_incomparable
from leaderboards.errors import NotComparableError
from leaderboards.pairs import rate_names
from leaderboards.rates import Rate
from leaderboards.statistics import holm, mcnemar_worse

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
        allow_unreliable: Whether a red flag that the baseline has not is let pass.
    """

    alpha: float = 0.05
    tolerance: float = 0.0
    max_lost: int | None = None
    metrics: tuple[str, ...] | None = None
    allow_unreliable: bool = False


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
        trusted: False of `robust` if the run has red flags that the baseline has not.
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
    trusted: bool = True

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if not self.trusted:
            return "not trusted"
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
        return tuple(line for metric in self.metrics for line in metric.failures)


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
    if "robust" in asked and not limits.allow_unreliable:
        refuse_half_diagnosed(baseline, run)
    before, after = baseline.right(), run.right()
    metrics = judge({names[m]: (before[m], after[m]) for m in asked}, limits, asked)
    failing = {metric.told for metric in metrics if metric.failures}
    flips = _flips(baseline, run, {names[m]: (before[m], after[m]) for m in asked}, failing)
    known = run.flags is not None and baseline.flags is not None
    new = tuple(sorted(set(run.flags or ()) - set(baseline.flags or ()))) if known else ()
    if new:
        metrics = tuple(_untrusted(m, new, limits) if m.name == "robust" else m for m in metrics)
    notes = _notes(baseline, run, limits, metrics)
    return Outcome(baseline, run, limits, metrics, flips, new, notes)


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


def _untrusted(robust: Metric, new: tuple[str, ...], limits: Limits) -> Metric:
    """Return `robust` of a run with new red flags."""
    told = f"robust accuracy cannot be trusted: new red flag{'s'[: len(new) - 1]} {', '.join(new)}"
    failures = () if limits.allow_unreliable else (told,)
    return replace(robust, trusted=False, failures=(*robust.failures, *failures))


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


def _notes(
    baseline: Baseline, run: Baseline, limits: Limits, metrics: tuple[Metric, ...]
) -> tuple[str, ...]:
    n, least = run.data.samples, least_loss(limits.alpha, len(metrics))
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
    if "robust" in [m.told for m in metrics] and baseline.flags is None and run.flags is None:
        notes.append("neither was diagnosed: masked gradients would not be noticed")
    return tuple(notes)
