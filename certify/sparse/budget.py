"""How many units each layer keeps at a sparsity: globally, evenly, or by Erdos-Renyi-kernel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Allocation = Literal["global", "uniform", "erk"]
ALLOCATIONS: tuple[Allocation, ...] = get_args(Allocation)


@dataclass(frozen=True)
class Budget:
    """How many units are kept.

    Attributes:
        groups: Names of weights that compete with each other, and how many units of theirs stay.
    """

    groups: tuple[tuple[tuple[str, ...], int], ...]

    @property
    def kept(self) -> int:
        """Units that are kept in all."""
        return sum(count for _, count in self.groups)


def allocate(
    shapes: Mapping[str, tuple[int, ...]],
    axes: Mapping[str, int | None],
    sparsity: float,
    allocation: Allocation,
) -> Budget:
    """Share out what a sparsity leaves: exactly `round((1 - sparsity) units)` units.

    "global": all weights compete, and a layer may be left with none. "uniform": every layer keeps
    the same share. "erk": a layer's share is proportional to (sum of its dimensions) / (product of
    its dimensions), at most 1 (Erdos-Renyi-kernel, Evci et al., ICML 2020, section 3). With these
    two every layer keeps a unit.

    Args:
        shapes: Shapes of the prunable weights.
        axes: Their units, from `unit_axes`.
        sparsity: Share of the units that is pruned, in [0, 1).
        allocation: How.

    Raises:
        ValueError: There are no layers, the sparsity is outside of [0, 1), or it leaves fewer units
            than there are layers.
    """
    if not shapes:
        raise ValueError("the model has no linear or convolution layer to prune")
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is the share that is pruned, in [0, 1): {sparsity} is not")
    units = {n: math.prod(s) if axes[n] is None else s[axes[n] or 0] for n, s in shapes.items()}
    total = round((1 - sparsity) * sum(units.values()))
    if total < len(units):
        raise ValueError(
            f"sparsity {sparsity} leaves {total} units to {len(units)} layers: each needs one"
        )
    if allocation == "global":
        return Budget(((tuple(units), total),))
    wanted = dict.fromkeys(units, 1.0)
    if allocation == "erk":
        wanted = {name: sum(shape) / math.prod(shape) for name, shape in shapes.items()}
    return Budget(tuple(((n,), count) for n, count in _shared(units, wanted, total).items()))


def _shared(units: Mapping[str, int], wanted: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers near `units * wanted`, scaled to a total; from 1 to all units of a layer."""
    low, high = 0.0, max(1 / share for share in wanted.values())
    for _ in range(200):  # the sum of the clipped shares grows with the scale
        scale = (low + high) / 2
        if sum(_clipped(units[n], scale * wanted[n]) for n in units) < total:
            low = scale
        else:
            high = scale
    exact = {name: _clipped(units[name], high * wanted[name]) for name in units}
    found = {name: max(1, math.floor(value)) for name, value in exact.items()}
    order = sorted(units, key=lambda name: found[name] - exact[name])
    while (missing := total - sum(found.values())) != 0:
        step = 1 if missing > 0 else -1
        for name in order if step > 0 else reversed(order):
            if missing and 1 <= found[name] + step <= units[name]:
                found[name] += step
                missing -= step
    return found


def _clipped(units: int, share: float) -> float:
    return max(1.0, units * min(1.0, share))
