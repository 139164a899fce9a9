"""Parts in which every ReLU has a known sign: there the network is affine, and an LP settles them.

The LP is never trusted: its dual values are multipliers and weights of a bound that is computed
like any other, and its solution is an input for the model to judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from certify.ascent import Goal, Point, evaluate
from certify.interval import as_interval
from certify.maps import affine
from certify.relus import Part

_PENALTY = 1e3
"""Price of violating a sign, in units of the largest slope of the outputs: an infeasible part, too,
has a minimum then, and its dual values stay of a size that rounding can bear."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """What the LP says of one part.

    Attributes:
        point: A bound from its dual values, of one part.
        minimiser: Its solution, (1, *shape).
        minimum: Its optimum, as the solver sees it.
    """

    point: Point
    minimiser: Tensor
    minimum: float


def solve(part: Part, goal: Goal, point: Point) -> Leaf | None:
    """Minimise the largest row of one part; None where no LP says it or the solver fails.

    Args:
        part: One part, no ReLU of it free.
        goal: What to bound.
        point: Its bound until now.
    """
    pieces = _pieces(part, goal)
    if pieces is None:
        return None
    split = part.sign[0] != 0
    sign = part.sign[0][split].double().cpu().numpy()
    slope, value = pieces
    features, rows = slope.shape[1], goal.rows.shape[1]
    offset = goal.offset[0].double().cpu().numpy()
    real = np.flatnonzero(np.isfinite(offset))
    count, signs = len(real), len(sign)
    top = float(np.abs(slope[:rows]).max()) + 1e-12
    penalty = _PENALTY * max(1.0, top, top / (float(np.abs(slope).max()) + 1e-12))
    box = part.known.inputs.box
    low, high = (end[0].double().flatten().cpu().numpy() for end in (box.lower, box.upper))
    left = np.zeros((count + signs, features + signs + 1))
    left[:count, :features], left[:count, -1] = slope[real], -1.0
    left[count:, :features] = -sign[:, None] * slope[rows:]
    left[count:, features:-1] = -np.eye(signs)
    right = np.concatenate([-value[real] - offset[real], sign * value[rows:]])
    cost = np.concatenate([np.zeros(features), np.full(signs, penalty), [1.0]])
    limits = [*zip(low, high, strict=True), *[(0.0, None)] * signs, (None, None)]
    found: Any = linprog(cost, A_ub=left, b_ub=right, bounds=limits, method="highs")
    if found.status != 0:
        return None
    dual = -found.ineqlin.marginals
    kind = point.weights
    weights, multipliers = torch.zeros_like(kind), torch.zeros_like(point.multipliers)
    weights[0, torch.from_numpy(real)] = torch.as_tensor(dual[:count]).to(kind)
    multipliers[0, split] = torch.as_tensor(dual[count:]).to(kind)
    best = Point(point.slopes, multipliers, weights.clamp(min=0), point.lower)
    best = Point(best.slopes, multipliers, best.weights, evaluate(part, goal, best))
    minimiser = torch.as_tensor(found.x[:features]).to(box.lower).view_as(box.lower)
    return Leaf(best, minimiser, float(found.fun))


def _pieces(part: Part, goal: Goal) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """The rows and the split neurons' inputs as affine functions of the input.

    Returns:
        Slopes (rows + split neurons, features) and values at 0; None if a call is neither affine
        nor a ReLU of known sign.
    """
    program, known = part.known.program, part.known
    (x,) = program.inputs.values()
    sources = dict(part.relus.calls)
    with torch.enable_grad():
        box = known.inputs.box
        middle = box.center.detach().requires_grad_()
        values = {x: middle}
        for node in program.nodes:
            parts = affine(program, node)
            if parts is not None:
                values[node.index] = sum(  # type: ignore[assignment]  # a call has an input
                    linear.apply(values[source]) for source, linear in parts
                )
            elif node.index in sources:
                source = sources[node.index]
                active = as_interval(known.values[source]).lower >= 0
                values[node.index] = values[source] * active.to(box.lower.dtype)
            else:
                return None
        output = values[goal.start].flatten()
        wanted = [(row.flatten() @ output) for row in goal.rows[0]]
        for place, sign in zip(part.index[0].tolist(), part.sign[0].tolist(), strict=True):
            if sign:
                wanted.append(_neuron(part, values, place))
        slopes = [torch.autograd.grad(value, middle, retain_graph=True)[0] for value in wanted]
    slope = torch.stack(slopes).flatten(1).double().cpu().numpy()
    at = torch.stack([value.detach() for value in wanted]).double().cpu().numpy()
    return slope, at - slope @ middle.detach().double().flatten().cpu().numpy()


def _neuron(part: Part, values: dict[int, Tensor], place: int) -> Tensor:
    for source, where in part.relus.place.items():
        if where.start <= place < where.stop:
            return values[source].flatten()[place - where.start]
    raise AssertionError("a neuron is of some ReLU")
