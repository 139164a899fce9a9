"""How many ReLUs are unstable (of either sign in the box of inputs): what makes proofs dear."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from attacks.classifier import exact_passes
from attacks.modes import evaluating
from attacks.threat import ThreatModel
from certify.ball import InputSet
from certify.bind import bind
from certify.crown import analyse
from certify.interval import as_interval
from certify.program import Program
from certify.rounding import OFF
from certify.trace import trace_model

StabilityMethod = Literal["ibp", "crown"]
_TOGETHER = 64
_RELUS = (torch.ops.aten.relu.default, torch.ops.aten.leaky_relu.default)


@dataclass(frozen=True)
class LayerStability:
    """The neurons of one ReLU, over all samples; the three shares add up to 1.

    Attributes:
        name: Path of the module that calls it, with `#2` and so on where it calls several.
        neurons: Neurons of one sample.
        unstable: Mean share with l < 0 < u.
        active: Mean share with l >= 0, and u > 0.
        inactive: Mean share with u <= 0.
    """

    name: str
    neurons: int
    unstable: float
    active: float
    inactive: float


@dataclass(frozen=True)
class Stability:
    """The ReLUs of a network, over some samples.

    Attributes:
        method: Whose bounds of the inputs of the ReLUs were taken.
        norm: Norm of the balls around the samples.
        eps: Their radius.
        samples: Number of samples.
        layers: The ReLUs in the order they are computed.
    """

    method: StabilityMethod
    norm: str
    eps: float
    samples: int
    layers: tuple[LayerStability, ...]

    @property
    def neurons(self) -> int:
        """Neurons of one sample."""
        return sum(layer.neurons for layer in self.layers)

    @property
    def unstable(self) -> float:
        """Mean share of unstable neurons over all layers."""
        return sum(layer.unstable * layer.neurons for layer in self.layers) / self.neurons

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values, totals included."""
        return asdict(self) | {"neurons": self.neurons, "unstable": self.unstable}


def unstable_relus(
    model: nn.Module, x: Tensor, threat: ThreatModel, method: StabilityMethod = "ibp"
) -> Stability:
    """Bound what each ReLU takes, in the ball around each sample, and count where 0 lies inside.

    A statistic and no proof: no allowance for rounding, by which a neuron that is 0 would count.

    Args:
        model: Any model that can be traced; ReLU and leaky ReLU count.
        x: Samples (n, *shape), n >= 1.
        threat: The ball; its box is that of the data.
        method: "ibp", or "crown": intermediate bounds of CROWN, tighter and dearer.

    Raises:
        ValueError: No such method, or the model has no ReLU.
        UnsupportedError: The model holds what no rule is there for.
    """
    if method not in get_args(StabilityMethod):
        raise ValueError(
            f"no method {method!r}: give one of {', '.join(get_args(StabilityMethod))}"
        )
    values = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with exact_passes(), evaluating(model), torch.no_grad():
        graph = trace_model(model, x[:2])
        program = bind(graph, {k: v.detach() for k, v in values.items()}, rounded=False)
        relus = _relus(program)
        if not relus:
            raise ValueError("the model has no ReLU that depends on its input")
        sums = torch.zeros(len(relus), 3, dtype=torch.int64)
        for start in range(0, len(x), _TOGETHER):
            inputs = InputSet.around(x[start : start + _TOGETHER], threat)
            sums += _signs(program, relus, inputs, method)
    return Stability(method, threat.norm, float(threat.eps), len(x), _layers(program, relus, sums))


def _relus(program: Program) -> list[tuple[str, int]]:
    """Name of each ReLU, and the node that it takes."""
    found: list[tuple[str, int]] = []
    calls: dict[str, int] = {}
    for node in program.nodes:
        if node.op in _RELUS:
            calls[node.module] = calls.get(node.module, 0) + 1
            more = f"#{calls[node.module]}" if calls[node.module] > 1 else ""
            found.append((node.module + more, node.inputs[0]))
    return found


def _signs(
    program: Program, relus: list[tuple[str, int]], inputs: InputSet, method: StabilityMethod
) -> Tensor:
    """How many neurons are unstable, active and inactive: int64, (ReLUs, 3)."""
    known = analyse(program, inputs, tighten=method == "crown", rounding=OFF)
    rows = []
    for _, source in relus:
        box = as_interval(known.values[source])
        unstable = (box.lower < 0) & (box.upper > 0)
        inactive = box.upper <= 0
        rows.append([int(unstable.sum()), int((~unstable & ~inactive).sum()), int(inactive.sum())])
    return torch.tensor(rows)


def _layers(
    program: Program, relus: list[tuple[str, int]], sums: Tensor
) -> tuple[LayerStability, ...]:
    layers = []
    for (name, source), row in zip(relus, sums.tolist(), strict=True):
        node = program.graph.nodes[source]
        neurons = torch.Size(node.shape).numel() // 2  # its shape is at batch size 2
        layers.append(LayerStability(name, neurons, *(k / sum(row) for k in row)))
    return tuple(layers)
