"""How far one explanation is from another: what attacks enlarge and certificates bound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from attacks.errors import AttackError

Measure = Literal["linf", "l2", "l1", "mean", "cosine", "top-k", "into-top-k", "out-of-top-k"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
NORM_ORDERS: dict[str, float] = {"linf": math.inf, "l2": 2, "l1": 1}
_RANKED = ("top-k", "into-top-k", "out-of-top-k")
_OF_FEATURES = ("into-top-k", "out-of-top-k")


@dataclass(frozen=True)
class Criterion:
    """When an explanation counts as bent: its distance from the clean one exceeds `threshold`.

    Attributes:
        measure: "linf", "l2", "l1": norm of the difference; "mean": mean of its absolute values;
            "cosine": 1 - cosine similarity, which is 1 where an explanation is zero; "top-k": share
            of the k largest entries that are no longer among them (Ghorbani et al., AAAI 2019);
            "into-top-k" and "out-of-top-k": how many of `features` are among the k largest, and
            how many are not (Wicker et al., ICLR 2023: is a protected attribute in or out).
        threshold: Largest distance that is still fine, >= 0.
        k: Number of entries that are ranked first, for the last three.
        features: Places in the flattened explanation, for the last two.
        relative: Whether a norm or mean counts in parts of that of the clean explanation.
        signed: Whether entries are ranked by value and not by absolute value.
    """

    measure: Measure = "linf"
    threshold: float = 0.0
    k: int | None = None
    features: tuple[int, ...] = ()
    relative: bool = False
    signed: bool = False

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise AttackError(f"no measure '{self.measure}': use one of {', '.join(MEASURES)}")
        if not 0 <= self.threshold < math.inf:
            raise AttackError(f"the threshold is {self.threshold}: it must be finite and >= 0")
        if (self.k is not None) != (self.measure in _RANKED):
            raise AttackError(f"k belongs to {', '.join(_RANKED)}, and they need it")
        if self.k is not None and self.k < 1:
            raise AttackError(f"k is {self.k}: it must be 1 or more")
        if bool(self.features) != (self.measure in _OF_FEATURES):
            raise AttackError(f"features belong to {', '.join(_OF_FEATURES)}, which need them")
        if len(set(self.features)) < len(self.features) or min(self.features, default=0) < 0:
            raise AttackError("features are distinct places in the flattened explanation, from 0")
        if self.relative and self.measure not in (*NORM_ORDERS, "mean"):
            raise AttackError(f"{self.measure} is relative already")
        if self.signed and self.measure not in _RANKED:
            raise AttackError(f"signed belongs to {', '.join(_RANKED)}")

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise AttackError unless explanations of this shape have such entries."""
        entries = math.prod(shape)
        if self.k is not None and self.k > entries:
            raise AttackError(f"k is {self.k}, but an explanation has {entries} entries")
        if max(self.features, default=0) >= entries:
            raise AttackError(f"no feature {max(self.features)}: the entries are 0-{entries - 1}")

    def distance(self, clean: Tensor, other: Tensor) -> Tensor:
        """Measure how far `other` is from `clean`; inf where either is not finite.

        Args:
            clean: Explanations (n, *shape).
            other: Explanations like `clean`.

        Returns:
            float64 (n,), >= 0.
        """
        v, w = clean.flatten(1).double(), other.flatten(1).double()
        found = _distance(self, v, w)
        legal = v.isfinite().all(1) & w.isfinite().all(1) & ~found.isnan()
        return torch.where(legal, found.clamp_min(0), torch.inf)

    def bent(self, distance: Tensor) -> Tensor:
        """Where a distance exceeds the threshold, bool (n,)."""
        return distance > self.threshold


def largest_entries(v: Tensor, k: int, signed: bool = False) -> Tensor:
    """Which entries are the k largest; of equal ones the first in order.

    Args:
        v: Flattened explanations (n, entries).
        k: How many.
        signed: By value, not by absolute value.

    Returns:
        bool (n, entries), k of them true in each row.
    """
    order = (v if signed else v.abs()).sort(dim=1, descending=True, stable=True).indices[:, :k]
    return torch.zeros_like(v, dtype=torch.bool).scatter_(1, order, True)


def cosine(v: Tensor, w: Tensor) -> Tensor:
    """Cosine similarity of rows (n, entries), float64; 0 where one of them is zero."""
    unit, other = (u / u.abs().amax(1, keepdim=True).clamp_min(1e-300) for u in (v, w))
    product = (unit * other).sum(1)
    similarity: Tensor = product / (unit.norm(dim=1) * other.norm(dim=1)).clamp_min(1e-300)
    return similarity


def size(measure: Measure, v: Tensor) -> Tensor:
    """Norm or mean of absolute values of rows (n, entries): the unit of relative distances."""
    if measure == "mean":
        return v.abs().mean(1)
    norm: Tensor = torch.linalg.vector_norm(v, ord=NORM_ORDERS[measure], dim=1)
    return norm


def _distance(criterion: Criterion, v: Tensor, w: Tensor) -> Tensor:
    measure, k = criterion.measure, criterion.k
    if measure == "cosine":
        return 1 - cosine(v, w)
    if k is None:
        found = size(measure, w - v)
        return found / size(measure, v) if criterion.relative else found
    now = largest_entries(w, k, criterion.signed)
    if measure == "top-k":
        return 1 - (now & largest_entries(v, k, criterion.signed)).sum(1).double() / k
    inside = now[:, list(criterion.features)].sum(1).double()
    return inside if measure == "into-top-k" else len(criterion.features) - inside
