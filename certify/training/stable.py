"""A regulariser that keeps neurons stable (NRSLoss), beside any other objective."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from attacks.objectives import Base, standard
from certify.errors import UnsupportedError
from certify.graph import Ref
from certify.interval import as_interval
from certify.program import Program
from certify.training.network import box, intervals, program
from certify.training.settings import Linf, Radius

aten = torch.ops.aten
_TINY = 1e-12


def nrs(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: Generator,
    scale: float,
    norm: Linf,
    eps: Radius,
    weight: Radius,
    base: Base = standard,
    lower: Tensor,
    upper: Tensor,
) -> Tensor:
    """Another loss, plus a penalty on ReLUs whose input may have either sign.

    `base + weight * mean of -tanh(1 + l u)` over all ReLUs and samples, for interval bounds l and u
    of the ReLU's input (Xiao et al., ICLR 2019, section 4). After batch norm it is `l u / gamma^2`,
    the channel's scale gamma held fixed, so that scaling channels down is no way out (NRSLoss, Li
    et al., TMLR 2022, arXiv:2206.07311). It prunes nothing: it goes with a method that does.

    Args:
        model: In training mode; its bounds see no dropout (see `network.program`).
        x: (n, *shape), inside the box.
        y: int64, (n,).
        generator: Passed on to `base`.
        scale: Multiplies `eps`.
        norm: "linf".
        eps: Radius in the units of the input.
        weight: Of the penalty; Li et al. take 1e-3 beside CROWN-IBP.
        base: The loss it is added to; it is called with the same batch, generator and scale.
        lower: Lower end of the input box, () or of the shape of a sample.
        upper: Upper end, likewise.

    Returns:
        The mean loss, a scalar.

    Raises:
        UnsupportedError: The model holds what cannot be bounded, or has no ReLU.
    """
    loss: Tensor = base(model, x, y, generator=generator, scale=scale)
    network = program(model, x)
    values = intervals(network, box(x, eps * scale, lower, upper))
    terms = []
    for node in network.nodes:
        if node.op is aten.relu.default:
            (source,) = node.inputs
            bounds = as_interval(values[source])
            product = bounds.lower * bounds.upper / _squared_scale(network, source)
            terms.append(-torch.tanh(1 + product).flatten())
    if not terms:
        raise UnsupportedError("nrs keeps ReLUs stable: the model has none")
    return loss + weight * torch.cat(terms).mean()


def _squared_scale(network: Program, source: int) -> Tensor | float:
    """Square of batch norm's scale, by channel, where a node is one; else 1."""
    node = network.graph.nodes[source]
    if node.op is not aten.batch_norm.default or not isinstance(node.args[1], Ref):
        return 1.0
    gamma: Tensor = network.constants[node.args[1].index]
    shape = (1, -1) + (1,) * (len(node.shape) - 2)
    return gamma.detach().square().clamp_min(_TINY).view(shape)
