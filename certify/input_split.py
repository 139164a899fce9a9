"""Branch and bound on inputs: complete for few of them, since bounds of small boxes are tight.

Sub-boxes that CROWN cannot prove are halved, in batches that are bounded together. Halves share
their cut, which is a float, so nothing lies between them. What is known of a box holds for its
halves: their intervals start from it, and only neurons that were unstable in it are bounded again.

Which input to cut decides how many boxes it takes. Where few are open, all cuts are tried and the
one with the best bounds is kept (on ACAS Xu that takes a tenth of the boxes, and less); where many
are, the cut goes where the bound's slope and the network's gradient, times the width, are largest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks import memory
from attacks.classifier import exact_passes
from certify.ball import InputSet
from certify.crown import analyse, output_bounds
from certify.descent import Forward, descend, violation
from certify.errors import CertifyError, UnsupportedError
from certify.interval import Interval, as_interval, some_samples
from certify.program import Program
from certify.result import Certificates, Outcome
from certify.search import Budget
from certify.specification import Specification

METHOD = "input-split"

_ENTRIES = 1 << 19
"""Neurons of all boxes of a batch: large enough to hide Python, small enough for caches."""
_FEW = 128
"""Up to so many open boxes in a batch, all cuts are tried."""
_SEARCHED = 32
"""Boxes of a batch from which a gradient search starts."""
_STEPS = 8
"""Its steps."""


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Boxes that are not proved yet.

    Attributes:
        lower: Ends, (n, *shape).
        upper: Likewise.
        known: Intervals of nodes over each of them.
    """

    lower: Tensor
    upper: Tensor
    known: dict[int, Interval]

    def __len__(self) -> int:
        return len(self.lower)

    def __getitem__(self, index: Tensor | slice) -> _Boxes:
        known = {
            i: v.each(lambda end: some_samples(end, index, len(self)))
            for i, v in self.known.items()
        }
        return _Boxes(self.lower[index], self.upper[index], known)

    def halved(self, score: Tensor) -> _Boxes:
        """Cut each across the input of the largest score, (n, inputs); lower halves first."""
        lower, upper = self.lower.flatten(1), self.upper.flatten(1)
        rows, place = torch.arange(len(lower), device=lower.device), score.argmax(1)
        cut = _middle(lower, upper)[rows, place]
        low, high = lower.clone(), upper.clone()
        high[rows, place], low[rows, place] = cut, cut
        known = {i: v.each(lambda end: torch.cat([end, end])) for i, v in self.known.items()}
        return _Boxes(
            torch.cat([lower, low]).view(-1, *self.lower.shape[1:]),
            torch.cat([high, upper]).view(-1, *self.lower.shape[1:]),
            known,
        )


def split_inputs(
    program: Program,
    inputs: InputSet,
    specification: Specification,
    forward: Forward,
    *,
    budget: Budget,
    legal: Interval | None = None,
    confirm: Callable[[Tensor], bool] | None = None,
) -> Certificates:
    """Prove a specification over one box of inputs, or find an input that violates it.

    It draws no random numbers: without a budget in seconds it does the same every time.

    Args:
        program: A bound program with the one input `x`.
        inputs: One box; "l1" and "l2" balls are not taken.
        specification: Of one sample.
        forward: The network, from (n, *shape) to (n, outputs), in floating point.
        budget: Of which `subproblems` counts boxes.
        legal: Where a violating input may lie, (1, *shape); None for the box.
        confirm: Has the last word on a violating input (1, *shape).

    Returns:
        One result. `unknown` does not occur; `rounding`: all is proved but boxes that are too
        small to cut, where rounding is as large as the margin; `timeout`: the budget ended.

    Raises:
        UnsupportedError: An operation has no rule.
    """
    if len(inputs) != 1 or inputs.center is not None:
        raise CertifyError("input splitting takes one box, of norm linf")
    where = legal or inputs.box

    def work() -> Certificates:
        return _Search(program, inputs, specification, forward, budget, where, confirm).run()

    with exact_passes(), torch.no_grad():
        return memory.halving(work, "input splitting", inputs.box.lower.device)


class _Search:
    """The search for one box."""

    def __init__(
        self,
        program: Program,
        inputs: InputSet,
        specification: Specification,
        forward: Forward,
        budget: Budget,
        legal: Interval,
        confirm: Callable[[Tensor], bool] | None,
    ) -> None:
        self.program, self.specification, self.forward = program, specification, forward
        self.budget, self.legal, self.confirm = budget, legal, confirm
        self.started = time.perf_counter()
        self.root = inputs
        width = inputs.box.upper - inputs.box.lower
        self.width = torch.where(width > 0, width, 1.0)
        self.boxes = 0
        self.first, self.least = -math.inf, math.inf
        self.stuck = False
        self.outcome: Outcome | None = None
        self.detail = ""
        self.found: Tensor | None = None
        sizes = [math.prod(n.shape) // 2 for n in program.nodes]
        self.numbers = sum(sizes)

    def run(self) -> Certificates:
        """Bound, attack and cut until no box is left or the budget ends."""
        root = _Boxes(self.root.box.lower, self.root.box.upper, {})
        stack = [root]
        try:
            while stack:
                if (ended := self._ended()) is not None:
                    return self._result(Outcome.TIMEOUT, ended)
                most = max(1, min(memory.room(2048), memory.room(_ENTRIES) // self.numbers))
                stack.extend(self._step(_taken(stack, most)))
                if self.outcome is not None:
                    return self._result(self.outcome, self.detail)
        except UnsupportedError:
            raise
        except (RuntimeError, ValueError, CertifyError) as error:
            if memory.exhausted(error):
                raise
            line = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            return self._result(Outcome.ERROR, line)
        if self.stuck:
            return self._result(Outcome.ROUNDING, "a box too small to be cut is not proved")
        return self._result(Outcome.CERTIFIED, "")

    def _step(self, boxes: _Boxes) -> list[_Boxes]:
        """Bound boxes, and return the halves of those that are not proved."""
        bounds, slopes, known = self._bounded(boxes)
        if bool((bounds.isnan() | (bounds == math.inf)).any()):  # infinite: it has overflowed
            self.outcome, self.detail = Outcome.ERROR, "the bound is not a number"
            return []
        if not self.boxes:
            self.first = float(bounds.amin())
        self.boxes += len(boxes)
        proved = bounds > 0
        self.least = min(self.least, float(bounds[proved].amin()) if proved.any() else math.inf)
        left = (~proved).nonzero()[:, 0]
        if not len(left):
            return []
        boxes, slopes = _Boxes(boxes.lower, boxes.upper, known)[left], slopes[left]
        if self._violated(boxes, slopes):
            self.outcome = Outcome.FALSIFIED
            return []
        middle = _middle(boxes.lower, boxes.upper)
        can = ((middle > boxes.lower) & (middle < boxes.upper)).flatten(1)
        whole = can.any(1)
        if not bool(whole.all()):
            self.stuck = True
            boxes, slopes, can = boxes[whole], slopes[whole], can[whole]
        if not len(boxes):
            return []
        score = self._ahead(boxes, can) if len(boxes) <= _FEW else self._steepness(boxes, slopes)
        return [boxes.halved(torch.where(can, score, -torch.inf))]

    def _ahead(self, boxes: _Boxes, can: Tensor) -> Tensor:
        """For each input, how far the halves of a cut across it are from being proved, negated."""
        score = torch.full(can.shape, -torch.inf, dtype=torch.float64, device=can.device)
        for place in can.any(0).nonzero()[:, 0].tolist():
            some = can[:, place].nonzero()[:, 0]
            only = torch.zeros_like(can[some], dtype=score.dtype)
            only[:, place] = 1.0
            bounds, _, _ = self._bounded(boxes[some].halved(only))
            self.boxes += len(bounds)
            low, high = bounds.nan_to_num(-math.inf).clamp(max=0).chunk(2)
            score[some, place] = (low + high).clamp(min=torch.finfo(score.dtype).min)
        return score

    def _steepness(self, boxes: _Boxes, slopes: Tensor) -> Tensor:
        """For each input, how much bound and network change over its width, by their slopes."""
        width = boxes.upper - boxes.lower
        with torch.enable_grad():
            at = _middle(boxes.lower, boxes.upper).requires_grad_()
            value = violation(self.specification, self.forward(at)).sum()
            (gradient,) = torch.autograd.grad(value, at)
        change = (slopes.abs() + gradient.abs()) * width
        least = torch.finfo(width.dtype).tiny  # where nothing changes, the widest
        return (change + width / self.width * least).flatten(1)

    def _bounded(self, boxes: _Boxes) -> tuple[Tensor, Tensor, dict[int, Interval]]:
        """Bounds of the worst clause, the slopes they have at the input, and what was learnt.

        The bound is `slopes @ x` at its least over the box, so its gradient with respect to the
        box's ends gives the slopes.
        """
        inputs = InputSet(Interval(boxes.lower, boxes.upper))
        known = analyse(self.program, inputs, tighten=True, within=boxes.known)
        (x,) = self.program.inputs.values()
        spec, count = self.specification, len(boxes)
        spread = Specification(
            spec.coefficients.expand(count, -1, -1), spec.offset.expand(count, -1), spec.clause
        )
        with torch.enable_grad():
            ends = [end.detach().requires_grad_() for end in (boxes.lower, boxes.upper)]
            known.values[x] = Interval(ends[0], ends[1])
            bounds = spec.per_clause(output_bounds(known, spread)).amin(1)
            low, high = torch.autograd.grad(bounds.sum(), ends, allow_unused=True)
        slopes = (low if low is not None else 0.0) + (high if high is not None else 0.0)
        nodes = {
            i for n in (*known.lines, *known.steps) for i in self.program.graph.nodes[n].inputs
        }
        learnt = {i: as_interval(known.values[i]) for i in sorted(nodes) if i in known.values}
        return bounds.detach(), slopes, learnt

    def _violated(self, boxes: _Boxes, slopes: Tensor) -> bool:
        """Look for a violating input at middles, at the corners the bound points to, and nearby."""
        corners = torch.where(slopes > 0, boxes.lower, boxes.upper)
        points = torch.cat([_middle(boxes.lower, boxes.upper), corners])
        points = points.clamp(self.legal.lower, self.legal.upper)
        value = violation(self.specification, self.forward(points))
        order = value.argsort()[:_SEARCHED]
        if bool(value[order[0]] > 0):
            points = descend(self.forward, self.specification, points[order], self.legal, _STEPS)
            value = violation(self.specification, self.forward(points))
            order = value.argsort()
        for index in order[value[order] <= 0].tolist():
            if self.confirm is None or self.confirm(points[index : index + 1]):
                self.found = points[index : index + 1]
                return True
        return False

    def _ended(self) -> str | None:
        """What budget has ended."""
        if self.boxes >= self.budget.subproblems:
            return f"{self.boxes} boxes"
        seconds = self.budget.seconds
        if seconds is not None and time.perf_counter() - self.started >= seconds:
            return f"{seconds:g} seconds"
        return None

    def _result(self, outcome: Outcome, detail: str) -> Certificates:
        lower = self.least if outcome is Outcome.CERTIFIED else self.first
        return Certificates(
            (outcome,),
            (METHOD,),
            torch.tensor([lower], dtype=torch.float64),
            torch.tensor([time.perf_counter() - self.started], dtype=torch.float64),
            torch.tensor([self.boxes]),
            (detail,),
            self.root.box.lower if self.found is None else self.found,
        )


def _taken(stack: list[_Boxes], most: int) -> _Boxes:
    """Take boxes off the end of a stack."""
    parts: list[_Boxes] = []
    while stack and most > 0:
        part = stack.pop()
        if len(part) > most:
            stack.append(part[: len(part) - most])
            part = part[len(part) - most :]
        parts.append(part)
        most -= len(part)
    if len(parts) == 1:
        return parts[0]
    lower, upper = (torch.cat([getattr(p, end) for p in parts]) for end in ("lower", "upper"))
    known = {
        i: Interval(
            torch.cat([p.known[i].lower for p in parts]),
            torch.cat([p.known[i].upper for p in parts]),
        )
        for i in parts[0].known
    }
    return _Boxes(lower, upper, known)


def _middle(lower: Tensor, upper: Tensor) -> Tensor:
    """A float between two, and neither of them unless they are neighbours."""
    return lower + (upper - lower) / 2
