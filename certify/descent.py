"""Looking for outputs that violate a specification, by signed gradients (Madry et al., ICLR 2018).

What is found counts for nothing until somebody has replayed it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from certify.interval import Interval
from certify.specification import Specification

Forward = Callable[[Tensor], Tensor]


def violation(specification: Specification, outputs: Tensor) -> Tensor:
    """How far outputs are from violating a specification of one sample; at most 0: they do.

    Args:
        specification: Of one sample.
        outputs: (n, outputs).

    Returns:
        float64, (n,): over clauses the least of the greatest row; NaN where an output is.
    """
    rows = outputs.double() @ specification.coefficients[0].double().T
    return specification.per_clause(rows + specification.offset[0].double()).amin(1)


def descend(
    forward: Forward, specification: Specification, start: Tensor, box: Interval, steps: int
) -> Tensor:
    """Step along signed gradients towards violation, by a quarter of the box at first.

    Args:
        forward: The network, (n, *shape) to (n, outputs).
        specification: Of one sample.
        start: Where to begin, (n, *shape).
        box: Where to stay, one box or n.
        steps: Steps, each shorter than the one before; the last by 1/100 of the box.

    Returns:
        The best of all points met, (n, *shape).
    """
    x = start.clamp(box.lower, box.upper)
    width = box.upper - box.lower
    best, least = x, torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
    for step in range(steps + 1):
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            value = violation(specification, forward(at))
            (gradient,) = torch.autograd.grad(value.sum(), at)
        better = value.detach() < least
        least = torch.where(better, value.detach(), least)
        best = torch.where(better.view(-1, *(1,) * (x.dim() - 1)), x, best)
        share = 0.25 * 0.04 ** (step / max(1, steps))
        x = (x - gradient.sign() * width * share).clamp(box.lower, box.upper)
    return best
