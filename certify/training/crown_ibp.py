"""CROWN-IBP (Zhang et al., ICLR 2020) with loss fusion (Xu et al., NeurIPS 2020).

Interval bounds for what lies inside the network, one backward pass of linear bounds for its output.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from certify.interval import Interval, as_interval
from certify.maps import affine
from certify.program import Program
from certify.propagate import Value
from certify.training.network import box, intervals, program, rivalry, rivals
from certify.training.settings import Linf, Radius, Share

_RELU = torch.ops.aten.relu.default


def crown_ibp(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: Generator,
    scale: float,
    norm: Linf,
    eps: Radius,
    beta_start: Share = 1.0,
    beta_end: Share = 0.0,
    fusion: bool = True,
    lower: Tensor,
    upper: Tensor,
) -> Tensor:
    """`beta CROWN-IBP + (1 - beta) IBP`, both upper bounds of the worst cross-entropy.

    beta goes from its start to its end as the warm-up does (equation 13, with kappa = 0).

    Args:
        model: In training mode; its bounds see no dropout (see `network.program`).
        x: (n, *shape), inside the box.
        y: int64, (n,).
        generator: Not used.
        scale: Multiplies `eps`, and is how far beta has come.
        norm: "linf".
        eps: Radius in the units of the input.
        beta_start: Weight of CROWN-IBP at scale 0.
        beta_end: Weight of CROWN-IBP at scale 1; at 0 the backward pass is left out.
        fusion: Whether one linear bound is taken, of the loss, instead of one per rival class.
        lower: Lower end of the input box, () or of the shape of a sample.
        upper: Upper end, likewise.

    Returns:
        The mean loss, a scalar.

    Raises:
        UnsupportedError: The model holds what cannot be bounded.
    """
    network = program(model, x)
    values = intervals(network, box(x, eps * scale, lower, upper))
    gaps = rivals(network, values, y)
    beta = beta_start + (beta_end - beta_start) * scale
    loss = F.cross_entropy(gaps.upper, y)
    if beta == 0:
        return loss
    if fusion:
        linear = fused_loss(network, values, gaps, y).mean()
    else:
        linear = F.cross_entropy(linear_rivals(network, values, y), y)
    return beta * linear + (1 - beta) * loss


def linear_rivals(network: Program, values: Mapping[int, Value], y: Tensor) -> Tensor:
    """Upper bounds of `z_k - z_y` by a row for each class, (n, classes), 0 at k = y."""
    like = as_interval(values[network.output]).lower
    return backward(network, values, rivalry(like.shape[1], like)[y])


def fused_loss(network: Program, values: Mapping[int, Value], gaps: Interval, y: Tensor) -> Tensor:
    """Upper bound of each sample's worst cross-entropy, (n,), by a single row.

    Cross-entropy is `log sum_k exp(z_k - z_y)`. Between the interval bounds of `z_k - z_y` each exp
    lies below its chord, so that the sum lies below one linear function of the logits, which is
    then bounded as a whole (Xu et al., section 3.3).

    Args:
        network: The program.
        values: Interval bounds of its nodes.
        gaps: Interval bounds of `z_k - z_y`, (n, classes).
        y: True classes, int64, (n,).
    """
    shift = gaps.upper.detach().amax(1, keepdim=True)  # so that no exp overflows; it is >= 0
    low, high = gaps.lower - shift, gaps.upper - shift
    width = high - low
    narrow = width < 1e-3  # where a quotient of differences is mostly rounding, a slope below it
    safe = torch.where(narrow, 1.0, width)
    slope = torch.where(narrow, low.exp(), (high.exp() - low.exp()) / safe)
    height = high.exp() - slope * gaps.upper
    true = torch.zeros_like(slope).scatter(1, y[:, None], 1.0)
    slope, height = slope * (1 - true), height * (1 - true) + (-shift).exp() * true
    row = slope - true * slope.sum(1, keepdim=True)
    total = backward(network, values, row[:, None])[:, 0] + height.sum(1)
    return total.log() + shift[:, 0]


def backward(network: Program, values: Mapping[int, Value], rows: Tensor) -> Tensor:
    """Bound rows of coefficients of the output from above, by substitution back to the input.

    A ReLU is below its chord and above a line of slope 0 or 1, whichever leaves less between them
    (adaptive slopes); what has no linear bound is taken at the worst end of its interval.

    Args:
        network: The program.
        values: Interval bounds of its nodes.
        rows: (n, rows, outputs).

    Returns:
        Upper bounds, (n, rows).
    """
    waiting = {network.output: rows}
    total = rows.new_zeros(rows.shape[:2])
    for node in reversed(network.nodes):
        if node.index not in waiting:
            continue
        here = waiting.pop(node.index)
        parts = affine(network, node)
        if parts is not None:
            for source, part in parts:
                start = torch.zeros_like(as_interval(values[source]).lower[:1])
                total = total + (here * part.apply(start)[:, None]).flatten(2).sum(2)
                passed = part.adjoint(here.flatten(0, 1))
                _add(waiting, source, passed.reshape(*here.shape[:2], *passed.shape[1:]))
        elif node.op is _RELU:
            source = node.inputs[0]
            passed, offset = _relu(here, as_interval(values[source]))
            total = total + offset
            _add(waiting, source, passed)
        else:
            total = total + _worst(here, as_interval(values[node.index]))
    for index, here in waiting.items():
        total = total + _worst(here, as_interval(values[index]))
    return total


def _add(waiting: dict[int, Tensor], index: int, rows: Tensor) -> None:
    waiting[index] = waiting[index] + rows if index in waiting else rows


def _relu(rows: Tensor, x: Interval) -> tuple[Tensor, Tensor]:
    """Coefficients of x, and what is added to the bound."""
    low, high = x.lower.clamp(max=0), x.upper.clamp(min=0)
    chord = high / (high - low).clamp(min=1e-12)
    flat = (x.upper > -x.lower).to(chord.dtype)
    above, below = rows.clamp(min=0), rows.clamp(max=0)
    passed = above * chord[:, None] + below * flat[:, None]
    return passed, (above * (-chord * low)[:, None]).flatten(2).sum(2)


def _worst(rows: Tensor, x: Interval) -> Tensor:
    """The largest value of rows over an interval, (n, rows)."""
    center, radius = x.center.flatten(1), x.radius.flatten(1)
    flat = rows.flatten(2)
    return torch.einsum("nrm,nm->nr", flat, center) + torch.einsum("nrm,nm->nr", flat.abs(), radius)
