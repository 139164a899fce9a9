"""What a box that holds an explanation says of it: how far it can be bent, and what stays.

All is computed in float64, into which explanations and boxes of float32 go exactly. The box holds
what the explanation is in real numbers, in float32 and in float64, so a bound over all real points
of the box covers all three; `Criterion.distance` itself works in float64, whatever it is given, and
its own rounding is covered by `_slack`. Distances are from `clean` as it is given, a fixed tensor:
whoever compares an attack to these bounds must measure it from the same one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.explanation_measures import Criterion, largest_entries, size
from certify.cosine_bound import cosine_slack, least_cosine
from certify.interval import Interval

_RANGE = (1e-140, 1e150)
"""Sizes within which no square underflows or overflows in a way that matters."""


def worst_distance(criterion: Criterion, clean: Tensor, box: Interval) -> Tensor:
    """Bound the distance of an explanation from the clean one.

    Norms, means and rankings are exact, but for rounding and for ties, which go whichever way is
    worse; of the cosine see `certify.cosine_bound`.

    Args:
        criterion: How distance is measured.
        clean: The explanation at the sample, finite, (n, *shape).
        box: What the explanation may be, (n, *shape).

    Returns:
        float64 (n,): `criterion.distance(clean, w)` is no more for any w of the box, in real
        numbers and as computed. Inf where the box or `clean` is not finite.

    Raises:
        AttackError: The criterion names entries that an explanation of this shape lacks.
    """
    criterion.check_shape(tuple(clean.shape[1:]))
    v, w, known = _flat(clean, box)
    measure, k = criterion.measure, criterion.k
    if measure == "cosine":
        found = 1 - least_cosine(v, w) + cosine_slack(v.shape[1])
        found = torch.where((v == 0).all(1), 1.0, found)
    elif k is None:
        found = _norm(measure, _deviation(v, w))
        if criterion.relative:
            unit = size(measure, v)
            found = torch.where(unit > _RANGE[0], found / unit, torch.inf) * (1 + _slack(v))
        found = torch.where(found < _RANGE[1], found, torch.inf)
    else:
        found = _ranked(criterion, k, v, w)
    return torch.where(known, found, torch.inf)


def box_metrics(clean: Tensor, box: Interval, k: int) -> dict[str, Tensor]:
    """Say all that a box certifies of an explanation.

    Args:
        clean: The explanation at the sample, finite, (n, *shape).
        box: What the explanation may be, (n, *shape).
        k: Entries that count as the most important ones, by absolute value.

    Returns:
        Each float64 (n,), rounded to the safe side; where the box or `clean` is not finite, what
        says nothing:

        - "deviation_linf", "deviation_mean", "deviation_l1", "deviation_l2": most that the
          explanation differs from `clean`: of `max(upper - v, v - lower)`;
        - "width_max", "width_mean": of `upper - lower`;
        - "cosine": the cosine similarity with `clean` is at least this;
        - "top_k": share of the k largest entries of `clean` that surely stay among the k largest;
        - "sup_norm": no entry is larger in absolute value;
        - "lipschitz": no L1 norm is larger: where the explanation is the gradient of a score, the
          score's Linf Lipschitz constant on the inputs that the box was made for;
        - "signs": share of entries that cannot be positive at one point and negative at another.

    Raises:
        AttackError: k is not the number of some entries.
    """
    top = Criterion("top-k", k=k)
    top.check_shape(tuple(clean.shape[1:]))
    v, w, known = _flat(clean, box)
    away = _deviation(v, w)
    width = (w.upper - w.lower) * (1 + 2.0**-51)
    found = {f"deviation_{name}": _norm(name, away) for name in ("linf", "mean", "l1", "l2")}
    found |= {
        "width_max": width.amax(1),
        "width_mean": _norm("mean", width),
        "sup_norm": w.magnitude.amax(1),
        "lipschitz": _norm("l1", w.magnitude),
    }
    found = {name: torch.where(known, value, torch.inf) for name, value in found.items()}
    signs = ((w.lower >= 0) | (w.upper <= 0)).double().mean(1)
    certain = {
        "cosine": torch.where(known, least_cosine(v, w), -1.0),
        "top_k": torch.where(known, 1 - _ranked(top, k, v, w), 0.0),
        "signs": torch.where(known, signs, 0.0),
    }
    return found | certain


def _flat(clean: Tensor, box: Interval) -> tuple[Tensor, Interval, Tensor]:
    """The explanation and its box in float64 (n, entries), and which are known; else zeros."""
    v, lower, upper = (t.detach().flatten(1).double() for t in (clean, box.lower, box.upper))
    known = v.isfinite() & lower.isfinite() & upper.isfinite() & (lower <= upper)
    known = known.all(1)
    v, lower, upper = (torch.where(known[:, None], t, 0.0) for t in (v, lower, upper))
    return v, Interval(lower, upper), known


def _deviation(v: Tensor, w: Interval) -> Tensor:
    """Most that each entry differs: a difference is rounded once, or exact if it is tiny."""
    return torch.maximum(w.upper - v, v - w.lower) * (1 + 2.0**-51)


def _slack(v: Tensor) -> float:
    """Relative error of norms and means of n entries, here and in `Criterion.distance`.

    Sums of n terms are off by n 2^-53, and squares, roots and quotients by a few units more: for
    both sides together 2 (n + 8) 2^-53 is enough, and this is twice that.
    """
    return (v.shape[1] + 8) * 2.0**-51


def _norm(measure: str, away: Tensor) -> Tensor:
    """Norm or mean of entries >= 0, rounded up; no square is lost."""
    if measure == "linf":
        return away.amax(1)
    if measure == "mean":
        return away.mean(1) * (1 + _slack(away))
    if measure == "l1":
        return away.sum(1) * (1 + _slack(away))
    unit = away.amax(1, keepdim=True).clamp_min(1e-300)
    length: Tensor = torch.linalg.vector_norm(away / unit, dim=1)
    return length * unit[:, 0] * (1 + _slack(away))


def _ranked(criterion: Criterion, k: int, v: Tensor, w: Interval) -> Tensor:
    """Most entries that get in or out: the ones at one end of the box, the others at the other.

    Raising an entry, or lowering another, never puts it out of the k largest, so that this one
    point of the box is the worst.
    """
    least, most = w.lower, w.upper
    if not criterion.signed:
        least, most = torch.maximum(w.lower, -w.upper).clamp_min(0), w.magnitude
    if criterion.measure == "top-k":
        of = largest_entries(v, k, criterion.signed)
    else:
        of = torch.zeros_like(v, dtype=torch.bool)
        of[:, list(criterion.features)] = True
    if criterion.measure == "into-top-k":
        return _inside(torch.where(of, most, least), of, of, k)
    inside = _inside(torch.where(of, least, most), of, ~of, k)
    return 1 - inside / k if criterion.measure == "top-k" else of.sum(1) - inside


def _inside(values: Tensor, of: Tensor, first: Tensor, k: int) -> Tensor:
    """How many of some entries are among the k largest, with `first` before others at ties."""
    order = first.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices
    largest = largest_entries(values.gather(1, order), k, signed=True)
    return (largest & of.gather(1, order)).sum(1).double()
