"""Looking for inputs that violate a specification, from starting points that a search suggests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attacks.balls import Ball
from attacks.randomness import stream_keys
from certify.specification import Specification

Forward = Callable[[Tensor], Tensor]


def clauses(specification: Specification, sample: Tensor, output: Tensor) -> Tensor:
    """Values of the clauses of samples (k,) at outputs (k, *shape): each its best row's."""
    rows = specification.coefficients[sample] @ output.flatten(1)[:, :, None]
    return specification.per_clause(rows[:, :, 0] + specification.offset[sample])


def descend(
    forward: Forward,
    specification: Specification,
    ball: Ball,
    sample: Tensor,
    start: Tensor,
    *,
    steps: int,
    share: float,
) -> tuple[Tensor, Tensor]:
    """Descend on the worst clause from given inputs, and stop at those that violate it.

    Args:
        forward: The model, in the precision that counts.
        specification: Of all samples.
        ball: Legal inputs of all samples.
        sample: Sample of each start, int64 (k,).
        start: (k, *shape); brought into the ball's bounds first.
        steps: Gradient steps.
        share: Length of the first step in units of the ball's radius; it shrinks to a tenth.

    Returns:
        Which were successful, (k,) bool, and the inputs (k, *shape). Success is a clause all of
        whose rows are negative at a legal input, as the model itself evaluates it.
    """
    here = ball.select(sample)
    x = torch.minimum(torch.maximum(start.to(here.x.dtype), here.low), here.high)
    if ball.threat.norm != "linf":
        x = here.step(x, torch.zeros_like(x), 0.0)
    found = torch.zeros(len(sample), dtype=torch.bool, device=x.device)
    best = x.clone()
    for step in range(steps + 1):
        with torch.enable_grad():
            x.requires_grad_(step < steps)
            worst = clauses(specification, sample, forward(x)).amin(1)
            total = worst.sum()
        new = (worst.detach() < 0) & ~found
        best[new], found = x.detach()[new], found | new
        if step == steps or bool(found.all()):
            break
        (gradient,) = torch.autograd.grad(total, x)
        size = share * ball.threat.eps * 0.1 ** (step / max(1, steps - 1))
        x = here.step(x.detach(), -gradient, size)
    return found, best


def attack(
    forward: Forward,
    specification: Specification,
    ball: Ball,
    sample: Tensor,
    keys: tuple[int, Sequence[int]],
    *,
    restarts: int,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Descend from random starts; arguments and result as in `descend`.

    Args:
        forward: The model.
        specification: Of all samples.
        ball: Legal inputs of all samples.
        sample: The samples to attack, int64 (k,).
        keys: The seed and the ids of all samples.
        restarts: Random starts for each.
        steps: Gradient steps of each.
    """
    seed, ids = keys
    found = torch.zeros(len(sample), dtype=torch.bool, device=sample.device)
    best = ball.x[sample].clone()
    for restart in range(restarts):
        left = (~found).nonzero()[:, 0]
        if not len(left):
            break
        who = sample[left]
        streams = stream_keys(seed, "branch-and-bound", [ids[i] for i in who.tolist()], restart)
        start = ball.select(who).start(streams.to(who.device))
        hit, x = descend(forward, specification, ball, who, start, steps=steps, share=0.25)
        found[left[hit]] = True
        best[left[hit]] = x[hit]
    return found, best
