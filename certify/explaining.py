"""Boxes that hold an explanation, for all inputs near a sample and all weights near the model's.

The explanation is traced like any function (`certify.trace`) and bounded in one of three ways:
"interval" propagates intervals throughout (Wicker et al., ICLR 2023, with every mask in its place);
"crown-interval" bounds what activations take by the linear domain first, and then goes through the
gradient by intervals; "linear" carries rows back through the gradient as well (after Shi et al.,
NeurIPS 2022), and keeps the better of both, entry by entry.
"""

from __future__ import annotations

import math
from typing import Literal, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call

from attacks import memory
from attacks.classifier import exact_passes
from attacks.explanations import Explanation, attribute
from attacks.modes import evaluating
from attacks.threat import ThreatModel, WeightBudget
from certify.ball import InputSet
from certify.bind import bind
from certify.crown import analyse
from certify.errors import CertifyError
from certify.graph import Graph
from certify.interval import Interval, as_interval
from certify.linear import Analysis, Rows, lower_bounds
from certify.program import Program
from certify.propagate import Value, propagate
from certify.trace import module_paths, trace

Method = Literal["interval", "crown-interval", "linear"]
METHODS: tuple[Method, ...] = get_args(Method)

_BYTES = 256 << 20
"""Memory for what is known of the nodes of the samples at hand."""
_ROWS_BYTES = 96 << 20
"""Memory for the rows of one pass."""


def trace_explanation(model: nn.Module, x: Tensor, seed: Tensor, explanation: Explanation) -> Graph:
    """Trace an explanation as a function of the input, its seed, and the model's tensors.

    Args:
        model: In eval mode.
        x: Samples (n, *shape), n >= 1.
        seed: Weights of their logits (n, classes).
        explanation: Which.

    Raises:
        UnsupportedError: The model cannot be traced, or not be differentiated by known calls.
    """
    state = state_of(model)

    def value(values: dict[str, Tensor]) -> Tensor:
        weights = {name: values[name] for name in state}

        def forward(at: Tensor) -> Tensor:
            result: Tensor = functional_call(model, weights, (at,))
            return result

        return attribute(explanation, forward, values["x"], values["seed"], values)

    own = {name: tensor.to(x) for name, tensor in explanation.tensors.items()}
    with module_paths(model):
        return trace(value, {**state, **own, "x": x, "seed": seed}, frozenset({"x", "seed"}))


class ExplanationCertifier:
    """Bounds of one model's explanations.

    Attributes:
        graph: The explanation, traced.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        explanation: Explanation,
        classes: int | None = None,
    ) -> None:
        """Trace the explanation.

        Args:
            model: In eval mode; its weights are read here and not again.
            x: One sample or more, (n, *shape).
            explanation: Which.
            classes: Number of classes; None asks the model.

        Raises:
            UnsupportedError: The explanation cannot be bounded.
        """
        if classes is None:
            with torch.no_grad():
                classes = int(model(x[:1]).shape[1])
        seed = torch.eye(classes).to(x)[:2]
        self.graph = trace_explanation(model, x[:2].detach(), seed[: len(x[:2])], explanation)
        self._own = {name: tensor.to(x) for name, tensor in explanation.tensors.items()}
        self._state = state_of(model)
        self._moving = {name for name, _ in model.named_parameters()}
        self._programs: dict[WeightBudget | None, Program] = {}

    def box(
        self,
        x: Tensor,
        seed: Tensor,
        threat: ThreatModel | None = None,
        budget: WeightBudget | None = None,
        method: Method = "crown-interval",
        features: Tensor | None = None,
    ) -> Interval:
        """Bound the explanation of each sample.

        Args:
            x: Samples (n, *shape).
            seed: As `attacks.explanations.seeds` gives it, (n, classes).
            threat: Inputs that are possible instead of a sample; None for the sample alone.
            budget: Weights that are possible instead of the model's; None for those alone.
            method: One of `METHODS`.
            features: Entries that "linear" bounds by rows of their own, bool of the shape of a
                sample; None for all. The others are never wider than by "crown-interval".

        Returns:
            (n, *shape): every value of the explanation over all these inputs and weights, in real
            numbers and in floats, lies inside. NaN where nothing is known.

        Raises:
            UnsupportedError: An operation has no rule.
            ValueError: There is no such method.
        """
        inputs = InputSet(Interval.point(x)) if threat is None else InputSet.around(x, threat)
        return self.bound(inputs, seed, budget, method, features)

    def bound(
        self,
        inputs: InputSet,
        seed: Tensor,
        budget: WeightBudget | None = None,
        method: Method = "crown-interval",
        features: Tensor | None = None,
    ) -> Interval:
        """The same for sets of inputs that need not be an attacker's; see `box`."""
        if method not in METHODS:
            raise ValueError(f"no method {method!r}: give one of {', '.join(METHODS)}")
        program = self._program(budget)
        device = inputs.box.lower.device

        def work() -> list[Interval]:
            parts = torch.arange(len(inputs), device=device).split(self._at_once(program))  # type: ignore[no-untyped-call]
            return [_box(program, inputs[p], seed[p], method, features) for p in parts]

        if not len(inputs):
            return inputs.box
        with exact_passes(), torch.no_grad():
            found = memory.halving(work, "bounds of explanations", device)
        return Interval(torch.cat([b.lower for b in found]), torch.cat([b.upper for b in found]))

    def _program(self, budget: WeightBudget | None) -> Program:
        if budget not in self._programs:
            values: dict[str, Value] = {**self._state, **self._own}
            if budget is not None and budget.gamma:
                values |= {name: _around(self._state[name], budget) for name in self._moving}
            with exact_passes(), torch.no_grad():
                self._programs[budget] = bind(self.graph, values)
        return self._programs[budget]

    @property
    def numbers(self) -> int:
        """Numbers that are known of a sample."""
        return self._program(None).numbers

    def _at_once(self, program: Program) -> int:
        return max(1, min(memory.room(256), memory.room(_BYTES) // (40 * program.numbers)))


def train_box(
    model: nn.Module,
    x: Tensor,
    seed: Tensor,
    explanation: Explanation,
    lower: Tensor,
    upper: Tensor,
    budget: WeightBudget | None = None,
) -> Interval:
    """Bound explanations by intervals throughout, without allowance for rounding: for training.

    Args:
        model: Bounded in eval mode, differentiably in its parameters.
        x: Samples (n, *shape): their shape and type.
        seed: Weights of their logits (n, classes).
        explanation: Which.
        lower: Lower ends of the inputs, (n, *shape).
        upper: Upper ends.
        budget: Weights that are possible instead of the model's; None for those alone.

    Raises:
        UnsupportedError: The explanation cannot be bounded.
    """
    key = (tuple(x.shape[1:]), x.dtype, x.device, id(explanation))
    graphs = _GRAPHS.setdefault(model, {})
    if key not in graphs:
        with evaluating(model):
            graph = trace_explanation(model, x[:2].detach(), seed[:2].detach(), explanation)
        graphs[key] = graph, explanation  # which keeps its id
    values: dict[str, Value] = {name: tensor.to(x) for name, tensor in explanation.tensors.items()}
    values |= dict(model.named_buffers())
    for name, weight in model.named_parameters():
        values[name] = weight
        if budget is not None and budget.gamma:
            radius = weight.abs() * budget.gamma if budget.relative else budget.gamma
            values[name] = Interval(weight - radius, weight + radius)
    program = bind(graphs[key][0], values, rounded=False)
    inputs: dict[str, Value] = {"x": Interval(lower, upper), "seed": Interval.point(seed)}
    return as_interval(propagate(program, inputs, rounded=False)[program.output])


_GRAPHS: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], tuple[Graph, Explanation]]] = (
    WeakKeyDictionary()
)
"""What was traced already: graphs hold no weights, so training does not outdate them."""


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, none of which takes that of an input of ours."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if taken := {"x", "seed", "unit", "baseline", "noise"} & state.keys():
        raise CertifyError(f"a tensor of the model is named {taken.pop()}: put it into a submodule")
    return {name: value.detach() for name, value in state.items()}


def _around(weight: Tensor, budget: WeightBudget) -> Interval:
    """All weights of the budget, rounded outwards."""
    exact = weight.double()
    radius = exact.abs() * budget.gamma if budget.relative else torch.full_like(exact, budget.gamma)
    radius = radius * (1 + 2**-50)
    up, down = (exact + radius).to(weight.dtype), (exact - radius).to(weight.dtype)
    return Interval(
        torch.nextafter(down, torch.full_like(down, -torch.inf)),
        torch.nextafter(up, torch.full_like(up, torch.inf)),
    )


def _box(
    program: Program, inputs: InputSet, seed: Tensor, method: Method, features: Tensor | None
) -> Interval:
    if program.output in program.constants:  # neither the input nor the seed matters
        return as_interval(program.constant(program.output, len(inputs)))
    if method == "interval":
        values = propagate(program, {"x": inputs.box, "seed": Interval.point(seed)})
        return as_interval(values[program.output])
    points = {"seed": seed}
    behind = _behind(program, program.inputs["seed"])
    known = analyse(program, inputs, tighten=True, points=points, skip=behind)
    box = as_interval(known.values[program.output])
    if method == "crown-interval":
        return box
    within = {i: v for i, v in known.values.items() if isinstance(v, Interval)}
    known = analyse(program, inputs, tighten=True, points=points, within=within)
    return as_interval(known.values[program.output]) & _by_rows(known, features)


def _behind(program: Program, seed: int) -> frozenset[int]:
    """The calls of the gradient: those that depend on the seed."""
    found = {seed}
    for node in program.nodes:
        if not found.isdisjoint(node.inputs):
            found.add(node.index)
    return frozenset(found)


def _by_rows(known: Analysis, features: Tensor | None) -> Interval:
    """Bound entries of the output by the linear domain; infinite where they are not asked for."""
    program, output, samples = known.program, known.program.output, len(known.inputs)
    box = as_interval(known.values[output])
    entries = math.prod(program.shape(output))
    widest = max([entries, *(math.prod(node.shape) // 2 for node in program.nodes)])
    each = max(1, memory.room(_ROWS_BYTES) // (8 * widest * samples * 2))
    device, kind = box.lower.device, box.lower.dtype
    asked = torch.ones(entries, dtype=torch.bool) if features is None else features.flatten().cpu()
    lower = torch.full((samples, entries), -torch.inf, dtype=kind, device=device)
    upper = -lower
    for some in asked.nonzero().flatten().split(each):  # type: ignore[no-untyped-call]
        rows = torch.zeros(2, len(some), entries, dtype=kind, device=device)
        place = torch.arange(len(some), device=device)
        rows[0, place, some], rows[1, place, some] = 1.0, -1.0
        both = rows.flatten(0, 1).expand(samples, -1, -1).reshape(-1, *program.shape(output))
        which = Rows.evenly(samples, 2 * len(some), device)
        found = lower_bounds(known, output, both, which)
        found = found - found.abs() * torch.finfo(kind).eps
        low, high = found.to(kind).view(samples, 2, -1).unbind(1)
        lower[:, some], upper[:, some] = low, -high
    return Interval(lower.view_as(box.lower), upper.view_as(box.upper))
