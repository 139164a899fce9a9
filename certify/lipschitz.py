"""Local Lipschitz constants, by bounds of the gradient's norm, and branch and bound on top.

Cases are halves of the box of inputs, and signs of ReLUs whose slope is not known (as in Shi et
al., NeurIPS 2022). Where the sign is given, the slope is 0 or 1 also on the face between the two
cases: there the gradients are those of the regions on its sides and what is between them, and no
norm is larger between two points than at both. Bounds hold whenever the search ends, and no case
has a larger bound than the one that it is a part of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from attacks import memory
from attacks.classifier import exact_passes
from attacks.threat import ThreatModel
from certify import slopes
from certify.ball import InputSet
from certify.graph import Node
from certify.interval import Interval, as_interval
from certify.linear import Analysis
from certify.steepness import Steepness

_FEW_INPUTS = 16
"""Up to so many, boxes are halved; signs are given where fewer are open than there are inputs."""
_POINTS = 16
"""Points for each sample and row, at which `lower` is looked for first."""
_STEPS = 5
"""Steps uphill on top of them."""
_AT_ONCE = 1024
"""Points of a pass."""
_CLOSE = 1e-4
"""Relative gap at which a bound is as good as exact."""
_NOTHING = -(1 << 40)
"""Instead of a cut."""


@dataclass(frozen=True, eq=False)
class LocalLipschitz:
    """Bounds of local Lipschitz constants, `lower <= truth <= upper`.

    Attributes:
        lower: The steepest gradient found, float64 (n, rows).
        upper: No gradient over the set is steeper, float64 (n, rows); infinite where nothing is
            known.
        root: `upper` before any case was split.
        subproblems: Cases bounded, int64 (n, rows).
    """

    lower: Tensor
    upper: Tensor
    root: Tensor
    subproblems: Tensor


def local_lipschitz(
    model: nn.Module,
    x: Tensor,
    threat: ThreatModel,
    rows: Tensor | None = None,
    *,
    budget: int = 1,
    seed: int = 0,
    steepness: Steepness | None = None,
) -> LocalLipschitz:
    """Bound local Lipschitz constants over the sets of a threat model.

    For all x', x'' in the set of a sample, a logit changes by at most the constant times their
    distance in the threat model's norm, in units of its scale.

    Args:
        model: In eval mode; from inputs (n, *shape) to logits (n, classes).
        x: Samples (n, *shape).
        threat: The sets.
        rows: Combinations of logits, (n, rows, classes), such as the margins of a
            `Specification`; None for each logit.
        budget: Cases that may be bounded for each sample and row; with 1, none is split.
        seed: Of the points that `lower` is found at.
        steepness: Of this model and threat model; None traces it.

    Raises:
        UnsupportedError: An operation has no rule.
    """
    with torch.no_grad():
        classes = int(model(x[:1]).shape[1])
    if rows is None:
        rows = torch.eye(classes).to(x).expand(len(x), -1, -1)
    if steepness is None:
        steepness = Steepness(model, x, threat, classes)

    def work() -> LocalLipschitz:
        return _Search(steepness, x, threat, rows, seed).run(budget)

    with exact_passes(), torch.no_grad():
        return memory.halving(work, "local Lipschitz constants", x.device)


@dataclass(frozen=True, eq=False)
class _Cases:
    """Cases of which the bound may still be improved.

    Attributes:
        problem: Sample and row, as one number, int64 (m,).
        lower: Ends of the box of inputs, (m, *shape).
        upper: Likewise.
        bound: Of the steepness, float64 (m,).
        cut: Neuron whose sign to give next, counted over all signs; -1 - i for input i.
        known: Intervals of nodes.
    """

    problem: Tensor
    lower: Tensor
    upper: Tensor
    bound: Tensor
    cut: Tensor
    known: dict[int, Interval]

    def __len__(self) -> int:
        return len(self.problem)

    def __getitem__(self, index: Tensor) -> _Cases:
        known = {i: v.each(lambda end: end[index]) for i, v in self.known.items()}
        ends = (self.lower[index], self.upper[index])
        return _Cases(self.problem[index], *ends, self.bound[index], self.cut[index], known)

    @classmethod
    def joined(cls, parts: list[_Cases]) -> _Cases:
        """One list of several."""

        def ends(name: str) -> Tensor:
            return torch.cat([getattr(p, name) for p in parts])

        known = {
            i: Interval(
                torch.cat([p.known[i].lower for p in parts]),
                torch.cat([p.known[i].upper for p in parts]),
            )
            for i in parts[0].known
        }
        problem, lower, upper = ends("problem"), ends("lower"), ends("upper")
        return cls(problem, lower, upper, ends("bound"), ends("cut"), known)


class _Search:
    """The search for all samples and rows, worst cases first."""

    def __init__(
        self, steepness: Steepness, x: Tensor, threat: ThreatModel, rows: Tensor, seed: int
    ) -> None:
        self.steepness, self.program = steepness, steepness.program
        self.shape = rows.shape[:2]
        self.rows = rows.flatten(0, 1)
        self.owner = torch.arange(len(x), device=x.device).repeat_interleave(rows.shape[1])
        self.root = InputSet.around(x, threat)
        self.generator = torch.Generator().manual_seed(seed)
        self.least = torch.zeros(len(self.rows), dtype=torch.float64, device=x.device)
        self.settled = self.least - torch.inf
        self.count = torch.zeros(len(self.rows), dtype=torch.int64, device=x.device)
        calls = {node.index: node for node in self.program.nodes}
        shapes = self.program.graph.nodes
        self.kinks = [
            n
            for n in calls.values()
            if n.op is slopes.step and n.args[1] == 0 and shapes[n.inputs[0]].shape[0] == 2
        ]
        self.gates = {n.index: _gates(calls, n.index) for n in self.kinks}
        self.inputs = math.prod(x.shape[1:])

    def run(self, budget: int) -> LocalLipschitz:
        """Bound, and split the worst cases while the budget lasts."""
        problem = torch.arange(len(self.rows), device=self.rows.device)
        box = Interval(self.root.box.lower[self.owner], self.root.box.upper[self.owner])
        found = []
        for some in problem.split(self.steepness.at_once):  # type: ignore[no-untyped-call]
            start = self.least[some] + torch.inf
            ends = box.lower[some], box.upper[some]
            self._points(some, *ends, _POINTS)
            self._climb(some, *ends)
            found.append(self._bounded(some, *ends, start, {}))
        root = torch.full_like(self.least, -torch.inf)
        for part in found:
            root[part.problem] = part.bound
        open_ = self._left(found)
        while open_ is not None and len(open_):
            able = self.count[open_.problem] + 2 <= budget
            order = torch.where(able, self._gap(open_), -torch.inf).argsort(descending=True)
            order = order[able[order]][: max(1, self.steepness.at_once // 2)]
            chosen = open_.problem[order]
            order = order[2 * _rank(chosen) + 2 <= (budget - self.count)[chosen]]
            if not len(order):
                break
            rest = torch.ones(len(open_), dtype=torch.bool, device=order.device)
            rest[order] = False
            open_ = self._left([open_[rest.nonzero()[:, 0]], self._split(open_[order])])
        upper = torch.maximum(self.least, self.settled)
        if open_ is not None:
            upper = upper.scatter_reduce(0, open_.problem, open_.bound, "amax")
        shaped = (v.view(self.shape) for v in (self.least, upper, root, self.count))
        return LocalLipschitz(*shaped)

    def _gap(self, cases: _Cases) -> Tensor:
        least = self.least[cases.problem]
        return (cases.bound - least) / least.clamp(min=1e-20)

    def _left(self, parts: list[_Cases]) -> _Cases | None:
        """What is not settled: no steeper gradient was found yet, and there is a way to go on."""
        cases = _Cases.joined(parts)
        stuck = (cases.cut == _NOTHING) | (self._gap(cases) <= _CLOSE)
        self.settled.scatter_reduce_(0, cases.problem[stuck], cases.bound[stuck], "amax")
        return cases[(~stuck).nonzero()[:, 0]]

    def _split(self, cases: _Cases) -> _Cases:
        """Two cases of each."""
        by_sign, flat = cases.cut >= 0, torch.arange(len(cases), device=cases.cut.device)
        lower, upper = (end.flatten(1) for end in (cases.lower, cases.upper))
        (low_low, high_low), (low_high, high_high) = (
            (lower.clone(), lower.clone()),
            (upper.clone(), upper.clone()),
        )
        halved, place = flat[~by_sign], (-1 - cases.cut)[~by_sign]
        cut = lower[halved, place] + (upper[halved, place] - lower[halved, place]) / 2
        low_high[halved, place], high_low[halved, place] = cut, cut
        known = dict(cases.known)
        start = 0
        for node in self.kinks:
            z = node.inputs[0]
            size = math.prod(self.program.shape(z))
            here = by_sign & (cases.cut >= start) & (cases.cut < start + size)
            who, where = flat[here], cases.cut[here] - start
            start += size
            ends = [known[z].lower.flatten(1), known[z].upper.flatten(1)]
            below, above = ends[1].clone(), ends[0].clone()
            tiny = torch.finfo(below.dtype).tiny
            below[who, where], above[who, where] = -tiny, tiny
            known[z] = Interval(
                torch.cat([ends[0], above]).view(-1, *known[z].shape[1:]),
                torch.cat([below, ends[1]]).view(-1, *known[z].shape[1:]),
            )
        done = {node.inputs[0] for node in self.kinks}
        for i, v in cases.known.items():
            if i not in done:
                known[i] = v.each(lambda end: torch.cat([end, end]))
        shape = cases.lower.shape[1:]
        problem, bound = (torch.cat([v, v]) for v in (cases.problem, cases.bound))
        ends = [torch.cat(v).view(-1, *shape) for v in ((low_low, high_low), (low_high, high_high))]
        self._points(problem, ends[0], ends[1], 2)
        return self._bounded(problem, ends[0], ends[1], bound, known)

    def _bounded(
        self,
        problem: Tensor,
        lower: Tensor,
        upper: Tensor,
        before: Tensor,
        within: dict[int, Interval],
    ) -> _Cases:
        """Bound cases, and choose what to split next."""
        inputs = replace(self.root[self.owner[problem]], box=Interval(lower, upper))
        bound, known = self.steepness.bound(inputs, self.rows[problem], within)
        self.count.scatter_add_(0, problem, torch.ones_like(problem))
        empty = torch.zeros_like(bound, dtype=torch.bool)
        for node in self.kinks:
            z = as_interval(known.values[node.inputs[0]])
            empty |= (z.lower > z.upper).flatten(1).any(1)
        bound = torch.where(empty, -torch.inf, torch.minimum(bound, before))
        nodes = {
            i for n in (*known.lines, *known.steps) for i in known.program.graph.nodes[n].inputs
        }
        nodes |= {node.inputs[0] for node in self.kinks}
        learnt = {i: as_interval(known.values[i]) for i in sorted(nodes) if i in known.values}
        learnt = {i: v for i, v in learnt.items() if len(v.lower) == len(problem)}
        cut = self._cut(known, lower, upper)
        return _Cases(problem, lower, upper, bound, cut, learnt)

    def _cut(self, known: Analysis, lower: Tensor, upper: Tensor) -> Tensor:
        """The sign that makes the gradient's interval widest, or the widest input."""
        scores = [torch.zeros(len(lower), 0, device=lower.device)]
        for node in self.kinks:
            slope = as_interval(known.values[node.index])
            open_ = slope.lower < slope.upper
            width = torch.zeros_like(slope.lower)
            for gate in self.gates[node.index]:
                if gate in known.values:
                    passed = as_interval(known.values[gate])
                    width = torch.maximum(width, passed.upper - passed.lower)
            width = width + torch.finfo(width.dtype).tiny
            scores.append(torch.where(open_, width, -1.0).flatten(1).to(lower.dtype))
        score = torch.cat(scores, 1)
        best, which = score.max(1) if score.shape[1] else (score.sum(1) - 1, score.sum(1).long())
        few = self.inputs <= _FEW_INPUTS
        signs = best > 0
        if few:
            signs = signs & ((score > 0).sum(1) <= self.inputs)
        low, high = lower.flatten(1), upper.flatten(1)
        middle = low + (high - low) / 2
        wide, place = torch.where((middle > low) & (middle < high), high - low, -1.0).max(1)
        found = torch.where((wide > 0) & few, -1 - place, _NOTHING)
        return torch.where(signs | ((found == _NOTHING) & (best > 0)), which, found)

    def _points(self, problem: Tensor, lower: Tensor, upper: Tensor, count: int) -> None:
        """Look for steep gradients at points inside and near corners, none of them on a kink.

        Boxes were rounded outwards, which points are kept away from.
        """
        u = torch.rand((count, *lower.shape), generator=self.generator, dtype=torch.float64)
        u[::2] = u[::2].round()
        low, high = self._inside(lower, upper)
        points = (low + (high - low) * u.to(low.device)).flatten(0, 1)
        self._try(problem.repeat(count), points)

    def _climb(self, problem: Tensor, lower: Tensor, upper: Tensor) -> None:
        """Look for them by signed steps uphill, which there are on smooth activations."""
        low, high = self._inside(lower, upper)
        points, rows = (low + high) / 2, self.rows[problem]
        for step in range(_STEPS):
            uphill = self.steepness.uphill(points, rows)
            if not bool(uphill.any()):
                return
            points = points + uphill.sign() * (high - low) / (2 + step)
            points = torch.minimum(torch.maximum(points, low), high)
            self._try(problem, points)

    def _inside(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        low, high = lower.double(), upper.double()
        middle = (low + high) / 2
        slack = 4 * torch.finfo(lower.dtype).eps * torch.maximum(low.abs(), high.abs())
        return torch.minimum(low + slack, middle), torch.maximum(high - slack, middle)

    def _try(self, problem: Tensor, points: Tensor) -> None:
        if self.root.center is not None:
            points = self._within_ball(points, self.root.center[self.owner[problem]].double())
        index = torch.arange(len(problem), device=problem.device)
        for some in index.split(_AT_ONCE):  # type: ignore[no-untyped-call]
            found = self.steepness.at(points[some], self.rows[problem[some]])
            self.least.scatter_reduce_(0, problem[some], found, "amax")

    def _within_ball(self, points: Tensor, center: Tensor) -> Tensor:
        """Points drawn towards the center of their ball, as far as it takes."""
        away = points - center
        unit = away if self.root.scale is None else away / self.root.scale.double()
        far = torch.linalg.vector_norm(unit.flatten(1), 2.0 if self.root.norm == "l2" else 1.0, 1)
        share = (self.root.eps * (1 - 1e-9) / far.clamp(min=1e-300)).clamp(max=1)
        found: Tensor = center + away * share.view(-1, *(1,) * (points.dim() - 1))
        return found


def _gates(calls: dict[int, Node], slope: int) -> list[int]:
    """The products that a slope is a factor of."""
    gates = [n for n in calls.values() if n.op is torch.ops.aten.mul.Tensor]
    return [n.index for n in gates if slope in n.inputs]


def _rank(values: Tensor) -> Tensor:
    """How many of the same value come before each."""
    order = values.argsort(stable=True)
    ordered = values[order]
    place = torch.arange(len(values), device=values.device)
    rank = torch.empty_like(place)
    rank[order] = place - torch.searchsorted(ordered, ordered)
    return rank
