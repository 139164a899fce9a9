"""How steep a logit, or a difference of logits, is over a set of inputs: the gradient's norm.

Over an Linf ball it is the largest L1 norm of the gradient, over an L2 ball the largest L2 norm,
over an L1 ball the largest entry. The norm is traced together with the gradient, so that the linear
domain bounds it as one number: lines above |g_i| keep what the entries have in common (after Shi et
al., NeurIPS 2022). Sums of max(|lower|, |upper|) follow as the interval bound, and the better of
both counts.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from attacks import memory
from attacks.classifier import exact_passes
from attacks.explanations import Explanation, attribute
from attacks.threat import AnyNorm, ThreatModel
from certify.ball import InputSet
from certify.bind import bind
from certify.crown import analyse
from certify.explaining import state_of
from certify.graph import Graph
from certify.interval import Interval, as_interval
from certify.linear import Analysis, Rows, lower_bounds
from certify.program import Program
from certify.trace import module_paths, trace

_BYTES = 128 << 20
"""Memory for what is known of the nodes of the subproblems at hand."""


class Steepness:
    """The norm of one model's gradients, ready to be bounded.

    Attributes:
        program: The norm (squared for "l2") as a function of `x` and `seed`, (n, 1).
        norm: The norm that inputs are apart in.
    """

    def __init__(self, model: nn.Module, x: Tensor, threat: ThreatModel, classes: int) -> None:
        """Trace it.

        Args:
            model: In eval mode; its weights are read here and not again.
            x: One sample or more, (n, *shape).
            threat: Its norm, scale and immutable features; the latter do not count.
            classes: Number of logits.

        Raises:
            UnsupportedError: The model cannot be bounded.
        """
        self.norm, self.model = threat.norm, copy.deepcopy(model).double()
        unit = torch.ones(x.shape[1:], dtype=torch.float64, device=x.device)
        if threat.scale is not None:
            unit = unit * threat.scale.double()
        if threat.immutable is not None:
            unit = unit * ~threat.immutable
        self.unit = unit
        wide = unit.to(x.dtype)
        up = torch.nextafter(wide, torch.full_like(wide, torch.inf))
        wide = torch.where(wide.double() < unit, up, wide)
        seed = torch.eye(classes).to(x)[: len(x[:2])]
        graph = _traced(model, x[:2].detach(), seed, wide, threat.norm)
        with exact_passes(), torch.no_grad():
            self.program: Program = bind(graph, {**state_of(model), "unit": wide})

    @property
    def at_once(self) -> int:
        """Subproblems whose analysis fits in memory."""
        numbers = sum(math.prod(node.shape) // 2 for node in self.program.nodes)
        return max(1, min(memory.room(512), memory.room(_BYTES) // (40 * max(1, numbers))))

    def bound(
        self, inputs: InputSet, seed: Tensor, within: Mapping[int, Interval] | None = None
    ) -> tuple[Tensor, Analysis]:
        """Bound the norm over each set from above.

        Args:
            inputs: m sets.
            seed: Rows of logits, (m, classes).
            within: What nodes are known to lie in.

        Returns:
            Bounds, float64 (m,), and what was learnt on the way.
        """
        program = self.program
        points = {"seed": seed}
        known = analyse(program, inputs, tighten=True, points=points, within=within)
        if program.output in program.constants:
            box = as_interval(program.constant(program.output, len(inputs)))
            return self._outwards(box.upper.double().flatten()), known
        box = as_interval(known.values[program.output])
        rows = Rows.evenly(len(inputs), 1, seed.device)
        found = -lower_bounds(known, program.output, -torch.ones_like(box.lower), rows)
        found = torch.minimum(found.nan_to_num(torch.inf), box.upper.double().flatten())
        return self._outwards(found), known

    def _outwards(self, found: Tensor) -> Tensor:
        found = found.nan_to_num(torch.inf, posinf=torch.inf).clamp(min=0)
        found = found.sqrt() if self.norm == "l2" else found
        return found * (1 + 2**-50)

    def at(self, x: Tensor, seed: Tensor) -> Tensor:
        """The norm at points in float64, (m,), rounded down."""
        return self._norm(x.detach().double().requires_grad_(), seed).detach() * (1 - 1e-10)

    def uphill(self, x: Tensor, seed: Tensor) -> Tensor:
        """Where the norm grows at points, (m, *shape); zero on ReLU nets."""
        points = x.detach().double().requires_grad_()
        with torch.enable_grad():
            total = self._norm(points, seed, again=True).sum()
            if not total.requires_grad:
                return torch.zeros_like(points)
            (found,) = torch.autograd.grad(total, points, allow_unused=True)
        return torch.zeros_like(points) if found is None else found

    def _norm(self, points: Tensor, seed: Tensor, *, again: bool = False) -> Tensor:
        with torch.enable_grad():
            score = (self.model(points) * seed.double()).sum()
            (gradient,) = torch.autograd.grad(score, points, create_graph=again)
            sizes = (gradient * self.unit).flatten(1)
            order = {"linf": 1.0, "l2": 2.0, "l1": math.inf}[self.norm]
            found: Tensor = torch.linalg.vector_norm(sizes, order, 1)
        return found


def _traced(model: nn.Module, x: Tensor, seed: Tensor, unit: Tensor, norm: AnyNorm) -> Graph:
    state = state_of(model)

    def value(values: dict[str, Tensor]) -> Tensor:
        weights = {name: values[name] for name in state}

        def forward(at: Tensor) -> Tensor:
            result: Tensor = functional_call(model, weights, (at,))
            return result

        sizes = attribute(Explanation(), forward, values["x"], values["seed"], {}) * values["unit"]
        if norm == "l2":
            return sizes.square().flatten(1).sum(1, keepdim=True)
        sizes = sizes.abs().flatten(1)
        return sizes.sum(1, keepdim=True) if norm == "linf" else sizes.amax(1, keepdim=True)

    with module_paths(model):
        return trace(value, {**state, "unit": unit, "x": x, "seed": seed}, frozenset({"x", "seed"}))
