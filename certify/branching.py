"""Which neuron to split: scores from the coefficients of a bound, checked by bounds of children."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks import memory
from certify.ascent import Goal, Point, evaluate
from certify.interval import Interval
from certify.relus import Part

_TRIED = 4
"""Neurons of a part whose children are bounded before one is chosen (0 or 1: the best score's)."""
_AT_ONCE = 1024
"""Such children that are bounded together, at most,"""
_BYTES = 512 << 20
"""and the memory for them."""


@dataclass(frozen=True, eq=False)
class Witness:
    """What a bound says of its own weakness.

    Attributes:
        minimiser: Input where the bound is attained, (p, *shape), for a box; for a ball, the corner
            of the box in that direction.
        score: By how much each unstable neuron's relaxation lowers the bound, (p, U); -inf where
            its sign is known or there is none.
    """

    minimiser: Tensor
    score: Tensor


def witness(part: Part, goal: Goal, point: Point) -> Witness:
    """Look at the bound of each part.

    Coefficients are gradients: of the inputs by the ends of their box, of a ReLU's value by a shift
    of its lines. The score is that of smart branching (BaBSR; Bunel et al., JMLR 2020) without
    biases: the intercept of the upper line times its coefficient, or what the lower line costs.
    """
    known, inputs = part.known, part.known.inputs
    (x,) = known.program.inputs.values()
    low, high = (end.detach().requires_grad_() for end in (inputs.box.lower, inputs.box.upper))
    shifts = {
        node: torch.zeros_like(known.lines[node].lower_offset).requires_grad_()
        for node, _ in part.relus.calls
    }
    with torch.enable_grad():
        moved = part.with_box(x, Interval(low, high))
        total = evaluate(moved, goal, point, shifts).sum()
    ends = [low, high, *shifts.values()]
    if total.requires_grad:
        found = torch.autograd.grad(total, ends, allow_unused=True, materialize_grads=True)
    else:  # the pass was cut before it came to the input or a ReLU
        found = tuple(torch.zeros_like(end) for end in ends)
    row = found[0] + found[1]
    minimiser = torch.where(row > 0, inputs.box.lower, inputs.box.upper)
    width = part.relus.width
    full = row.new_full((len(part), width + 1), -torch.inf)
    for (node, source), coefficient in zip(part.relus.calls, found[2:], strict=True):
        where, lines = part.relus.place[source], known.lines[node]
        box = known.values[source]
        assert isinstance(box, Interval)
        cost = coefficient.clamp(max=0).neg() * lines.upper_offset
        below = part.slopes_of(node, point.slopes)
        gain = torch.minimum((1 - below) * box.upper, below * -box.lower)
        cost = cost + 0.5 * coefficient.clamp(min=0) * gain
        cost = torch.where(part.free[node], cost, -torch.inf)
        full[:, where] = torch.maximum(full[:, where], cost.reshape(len(full), -1))
    return Witness(minimiser, full.gather(1, part.index))


def choose(part: Part, goal: Goal, point: Point, score: Tensor) -> Tensor:
    """Choose a neuron of each part to split on, int64 (p,): its place among the unstable ones.

    Of those with the best scores, the one whose worse child has the highest bound at the parent's
    slopes and multipliers (filtered smart branching, De Palma et al., 2021).
    """
    tried = min(_TRIED, score.shape[1])
    top, neuron = score.topk(tried, dim=1)
    if tried == 1:
        return neuron[:, 0]
    parts = torch.arange(len(part), device=score.device).repeat_interleave(2 * tried)
    children = neuron.repeat_interleave(2, dim=1).flatten()
    side = torch.tensor([1, -1], dtype=torch.int8, device=score.device).repeat(len(part) * tried)

    def bound(some: Tensor) -> Tensor:
        of = parts[some]
        return evaluate(part.split(of, children[some], side[some]), goal.take(of), point.take(of))

    size = max(
        1, min(memory.room(_AT_ONCE), memory.room(_BYTES) // (40 * part.known.program.numbers))
    )
    every = torch.arange(len(parts), device=parts.device).split(size)  # type: ignore[no-untyped-call]
    bounds = torch.cat([bound(some) for some in every])
    worse = bounds.view(len(part), tried, 2).amin(2)
    worse = torch.where(top > -torch.inf, worse, -torch.inf).nan_to_num(-torch.inf)
    return neuron.gather(1, worse.argmax(1, keepdim=True))[:, 0]
