"""alpha-CROWN (Xu et al., ICLR 2021): lower slopes of unstable ReLUs optimised for each row."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from attacks import memory
from certify.ascent import Goal, Point, ascend
from certify.crown import _with_errors, output_bounds
from certify.interval import Interval, as_interval
from certify.linear import Analysis
from certify.lines import LINES
from certify.relus import Relus
from certify.specification import Specification

_BYTES = 64 << 20
"""Memory for one set of lines of the parts that are optimised at once."""
_WHOLE_BYTES = 512 << 20
"""Memory for all that is known of these parts, and for gradients."""
_REFINED = 512
"""Neurons of a layer up to which refining its inputs pays."""
STEPS, REFINE_STEPS = 20, 10
_RATE = 0.25


def alpha_bounds(
    known: Analysis,
    specification: Specification,
    *,
    steps: int = STEPS,
    lower: Tensor | None = None,
) -> Tensor:
    """Bound the rows of a specification from below: float64, (n, rows).

    Only rows of clauses that CROWN leaves open are optimised, each with slopes of its own.

    Args:
        known: The analysis of the program.
        specification: Rows for each sample, of the program's outputs.
        steps: Gradient steps.
        lower: CROWN's own bounds where they are known already.
    """
    found = output_bounds(known, specification) if lower is None else lower.clone()
    clause = torch.tensor(specification.clause, device=found.device)
    undone = ~(specification.per_clause(found) > 0)[:, clause]
    sample, row = undone.nonzero(as_tuple=True)
    if not len(sample):
        return found
    relus = Relus.of(known)
    output = known.program.output
    for some in torch.arange(len(sample), device=found.device).split(chunk(relus)):  # type: ignore[no-untyped-call]
        who, which = sample[some], row[some]
        rows = specification.coefficients[who, which]
        goal = Goal(
            output,
            rows.view(-1, 1, *known.program.shape(output)),
            specification.offset[who, which][:, None],
        )
        best = ascend(relus.whole(who), goal, start(relus, who, 1), steps, rate=_RATE)
        found[who, which] = torch.where(
            best.lower <= found[who, which], found[who, which], best.lower
        )
    return found


def refine(known: Analysis, *, steps: int) -> Analysis:
    """Tighten the inputs of ReLUs in small layers, with slopes optimised for each bound.

    Args:
        known: An analysis; it is left as it is.
        steps: Gradient steps for each bound.
    """
    known = replace(known, values=dict(known.values), lines=dict(known.lines))
    for node in known.program.nodes:
        if node.index not in known.lines:
            continue
        source = next(i for i in node.inputs if i not in known.program.constants)
        box, relaxation = as_interval(known.values[source]), LINES[node.op]
        relus = Relus.of(known)
        small = box.lower[0].numel() <= _REFINED
        if small and any(before < source for before, _ in relus.calls):
            box = _refined(relus, source, relaxation.open(node, box), steps)
            known.values[source] = box
        known.lines[node.index] = _with_errors(known, source, relaxation.lines(node, box))
    return known


def _refined(relus: Relus, node: int, open_: Tensor, steps: int) -> Interval:
    known = relus.known
    box = as_interval(known.values[node])
    samples, kind = len(known.inputs), box.lower.dtype
    lower, upper = box.lower.reshape(samples, -1).clone(), box.upper.reshape(samples, -1).clone()
    owner, where = open_.reshape(samples, -1).nonzero(as_tuple=True)
    if not len(owner):
        return box
    for some in torch.arange(len(owner), device=owner.device).split(chunk(relus)):  # type: ignore[no-untyped-call]
        who, place = owner[some], where[some]
        for sign in (1.0, -1.0):
            rows = lower.new_zeros(len(who), lower.shape[1])
            rows[torch.arange(len(who), device=rows.device), place] = sign
            goal = Goal(node, rows[:, None], rows.new_zeros(len(rows), 1))
            # a bound beyond 0 makes the neuron stable
            best = ascend(relus.whole(who), goal, start(relus, who, 1), steps, rate=_RATE).lower
            bound = (best - best.abs() * torch.finfo(kind).eps).to(kind)
            if sign > 0:
                lower[who, place] = torch.maximum(lower[who, place], bound)
            else:
                upper[who, place] = torch.minimum(upper[who, place], -bound)
    return Interval(lower.view_as(box.lower), upper.view_as(box.upper))


def start(relus: Relus, sample: Tensor, rows: int) -> Point:
    """Where CROWN stands: its slopes, no multipliers, all weight on the first row."""
    slopes = relus.start_slopes(sample)
    weights = slopes.new_zeros(len(sample), rows)
    weights[:, 0] = 1
    return Point(
        slopes,
        torch.zeros_like(slopes),
        weights,
        weights.new_full((len(sample),), -math.inf, dtype=torch.float64),
    )


def chunk(relus: Relus) -> int:
    """Parts whose lines fit in memory."""
    size = relus.width + relus.known.inputs.box.lower[0].numel()
    whole = memory.room(_WHOLE_BYTES) // (60 * relus.known.program.numbers)
    return max(1, min(memory.room(_BYTES) // (4 * size), whole))
