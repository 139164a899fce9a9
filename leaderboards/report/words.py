"""Numbers and short phrases of the report."""

from __future__ import annotations

from leaderboards.manifest import ThreatInfo
from leaderboards.rates import Rate

NONE = "-"


def share(rate: Rate | None) -> str:
    """A rate as a percentage: `72.88%`."""
    return NONE if rate is None else f"{rate.value:.2%}"


def interval(rate: Rate | None) -> str:
    """Its exact interval: `71.99% to 73.75%`."""
    return NONE if rate is None else f"{rate.lower:.2%} to {rate.upper:.2%}"


def plural(n: int, one: str, several: str | None = None) -> str:
    """A count with its noun: `1 sample`, `1,234 samples`."""
    return f"{n:,} {one if n == 1 else several or one + 's'}"


def number(value: float | None) -> str:
    """Four digits that count."""
    return NONE if value is None else f"{value:.4g}"


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def ball(threat: ThreatInfo) -> str:
    """What the attacker may do, in symbols."""
    sign = {
        "linf": "max_i |d_i|",
        "l2": "sqrt(sum_i d_i^2)",
        "l1": "sum_i |d_i|",
        "l0": "#{i: x'_i != x_i}",
    }
    unit = "x'_i - x_i" if threat.eps_unit == "input" else "(x'_i - x_i) / (upper_i - lower_i)"
    inside = f"{sign[threat.norm]} <= {threat.eps:g}"
    where = f", d_i = {unit}" if threat.norm != "l0" else ""
    fixed = f", x'_i = x_i for i in {{{threat.immutable}}}" if threat.immutable else ""
    return f"{{ x' : {inside}{where}, lower_i <= x'_i <= upper_i{fixed} }}"
