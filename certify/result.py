"""What a certificate says of each sample."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor


class Outcome(StrEnum):
    """How the attempt to prove one sample robust ended. No two of them are ever merged."""

    CERTIFIED = "certified"
    """Proved: no input of the threat model is misclassified, in real numbers or in float32."""
    FALSIFIED = "falsified"
    """A misclassified input was found on the way; it has yet to be re-checked by a driver."""
    UNKNOWN = "unknown"
    """The method ran to its end and could not prove it."""
    ROUNDING = "rounding"
    """Proved up to rounding: the bound is positive, but smaller than the error bound."""
    TIMEOUT = "timeout"
    """A budget ended first."""
    ERROR = "error"
    """The method failed: an exception, or a bound that is not a number."""


@dataclass(frozen=True, eq=False)
class Certificates:
    """Results for n samples.

    Attributes:
        outcome: How each ended.
        method: Name of the method that settled it or, if none did, that gave `lower`.
        lower: Best proven lower bound of the margin `z_y - max of the others` over the threat
            model, float64 (n,); -inf where there is none. Rounding is already taken off.
        seconds: Each sample's share of the time, float64 (n,).
        work: Subproblems that were bounded, int64 (n,): 1 for a single bound.
        detail: One line each, empty where there is nothing to say; for an error what went wrong.
        candidates: Inputs (n, *shape) that are misclassified where `outcome` is falsified (the
            sample itself elsewhere), or None if the method finds none.
    """

    outcome: tuple[Outcome, ...]
    method: tuple[str, ...]
    lower: Tensor
    seconds: Tensor
    work: Tensor
    detail: tuple[str, ...]
    candidates: Tensor | None = None
