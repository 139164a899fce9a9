"""Complete branch and bound on the signs of ReLUs (beta-CROWN, Wang et al., NeurIPS 2021).

A sample has one tree of parts for each clause that CROWN leaves open. A part is bounded with
multipliers for the signs that its splits fix and with slopes of its own, both raised by gradients
from its parent's; intervals stay those of the root, cut at the splits. Each round takes the parts
of the lowest bounds of every sample, so that what happens to one does not depend on the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from attacks import memory
from attacks.balls import Ball
from certify.alpha import REFINE_STEPS, refine, start
from certify.ascent import Goal, Point, ascend, evaluate
from certify.ball import InputSet
from certify.branching import choose, witness
from certify.crown import analyse, output_bounds
from certify.errors import UnsupportedError
from certify.falsify import Forward, attack, descend
from certify.interval import as_interval
from certify.leaf import solve
from certify.program import Program
from certify.relus import Part, Relus, subset
from certify.result import Certificates, Outcome
from certify.search import Budget, Search, Subproblem
from certify.shelf import Shelf
from certify.specification import Specification

T = TypeVar("T")

_GROUP = 64
"""Samples that are in work at once."""
_QUOTA = 32
"""Parts of a sample that are split in one round."""
_BATCH = 128
"""Parts that are split at once, of whatever samples."""
_BYTES = 256 << 20
"""Memory for what is known of the nodes of these parts."""
_ROOT_STEPS, _STEPS = 20, 10
_ROOT_RATE, _RATE = 0.25, 0.1
_RESTARTS, _ATTACK_STEPS = 2, 20
_PROBE_STEPS = 4
_NEAR_ZERO = 1e-4
"""How far below 0 a leaf's optimum may be, relative to its outputs, and be called rounding."""


def branch_and_bound(
    program: Program,
    inputs: InputSet,
    specification: Specification,
    forward: Forward,
    ball: Ball,
    budget: Budget,
    *,
    seed: int = 0,
    ids: Sequence[int] | None = None,
) -> Certificates:
    """Prove or falsify a specification, sample by sample.

    Args:
        program: The model's program.
        inputs: The sets of inputs of n samples, for proofs.
        specification: What has to hold of the outputs.
        forward: The model in the precision that counts, which judges candidates.
        ball: The legal inputs of the n samples, for attacks.
        budget: Where to stop.
        seed: Of the attack's random starts.
        ids: The samples' ids, to which randomness belongs; their places if None.

    Returns:
        Certificates. A sample that ends as `unknown` is one whose leaves no LP describes: a norm
        ball that is no box, or calls other than ReLU that are not affine.

    Raises:
        UnsupportedError: The model has an operation without a rule.
    """
    ids = range(len(inputs)) if ids is None else ids
    shelf = Shelf()
    searches = [Search(i, budget, shelf) for i in range(len(inputs))]
    engine = _Engine(program, inputs, specification, forward, ball, (seed, ids), searches)
    left = list(range(len(inputs)))

    def work() -> None:
        while left:
            group = left[: memory.room(_GROUP)]
            with torch.no_grad():
                engine.run(group)
            del left[: len(group)]

    memory.halving(work, "branch and bound", ball.x.device)
    return Certificates(
        outcome=tuple(s.outcome or Outcome.TIMEOUT for s in searches),
        method=tuple(s.method for s in searches),
        lower=torch.tensor([s.lower for s in searches], dtype=torch.float64),
        seconds=torch.tensor([s.seconds for s in searches], dtype=torch.float64),
        work=torch.tensor([s.work for s in searches], dtype=torch.int64),
        detail=tuple(s.detail for s in searches),
        candidates=engine.candidates,
    )


@dataclass(eq=False)
class _Root:
    """The analysis of some samples, from which their trees grow."""

    place: dict[int, int]
    relus: Relus


@dataclass(eq=False)
class _Engine:
    """What a run works with."""

    program: Program
    inputs: InputSet
    specification: Specification
    forward: Forward
    ball: Ball
    keys: tuple[int, Sequence[int]]
    searches: list[Search]

    def __post_init__(self) -> None:
        self.candidates = self.ball.x.clone()
        clause = torch.tensor(self.specification.clause, device=self.ball.x.device)
        groups = [(clause == c).nonzero()[:, 0] for c in range(int(clause.max()) + 1)]
        self.most = max(len(g) for g in groups)
        self.rows_of = torch.full((len(groups), self.most), -1, device=clause.device)
        for c, rows in enumerate(groups):
            self.rows_of[c, : len(rows)] = rows

    def run(self, samples: list[int]) -> None:
        """Settle some samples, or use up their budgets."""
        roots: list[_Root] = []
        self._attempt(samples, lambda some: roots.extend(self._grow(some)), int)
        while True:
            busy = False
            for root in roots:
                live = [self.searches[i] for i in root.place if self.searches[i].outcome is None]
                parts = [part for search in live for part in search.take(_QUOTA)]
                busy = busy or bool(parts)
                memory.halving(partial(self._rounds, root, parts), "branch and bound", self.device)
            if not busy:
                return

    def _rounds(self, root: _Root, parts: list[Subproblem]) -> None:
        """Do a round of some parts, as many at once as there is room for; takes them off."""
        while parts:
            batch = parts[: self._at_once()]
            self._attempt(batch, partial(self._round, root), _sample)
            del parts[: len(batch)]

    def _at_once(self) -> int:
        return max(1, min(memory.room(_BATCH), memory.room(_BYTES) // (64 * self.program.numbers)))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.ball.x.device

    def _attempt(
        self, items: list[T], work: Callable[[list[T]], None], sample: Callable[[T], int]
    ) -> None:
        """Do some work at once or, where that fails, sample by sample: errors stay with theirs."""
        began = time.perf_counter()
        owners = [sample(item) for item in items]
        try:
            work(items)
        except (UnsupportedError, OSError):  # also a full disk
            raise
        except Exception as error:
            if memory.exhausted(error):
                raise
            if len(set(owners)) == 1:
                text = str(error).strip().splitlines() or ["no message"]
                self.searches[owners[0]].fail(f"{type(error).__name__}: {text[0]}")
            else:
                for owner in dict.fromkeys(owners):
                    own = [item for item, o in zip(items, owners, strict=True) if o == owner]
                    self._attempt(own, work, sample)
                return
        share = (time.perf_counter() - began) / len(items)
        for owner in owners:
            self.searches[owner].seconds += share

    def _grow(self, samples: list[int]) -> list[_Root]:
        """Bound samples by CROWN, attack the open ones, and plant the trees of what is left."""
        index = torch.tensor(samples, device=self.ball.x.device)
        spec = _subset(self.specification, index)
        known = analyse(self.program, self.inputs[index], tighten=True)
        clauses = spec.per_clause(output_bounds(known, spec))
        open_ = ~(clauses > 0)
        doubtful = open_.any(1).nonzero()[:, 0]
        hit, x = attack(
            self.forward,
            self.specification,
            self.ball,
            index[doubtful],
            self.keys,
            restarts=_RESTARTS,
            steps=_ATTACK_STEPS,
        )
        left = doubtful[~hit]
        planted: list[Subproblem] = []
        root = None
        if len(left):
            relus = Relus.of(refine(subset(known, left), steps=REFINE_STEPS))
            root = _Root({samples[i]: place for place, i in enumerate(left.tolist())}, relus)
            planted = self._plant(root, open_[left])
        # nothing above changed a search: it may be done again
        lowest = torch.where(open_, torch.inf, clauses).amin(1).tolist()
        broken = dict(zip(doubtful[hit].tolist(), x[hit], strict=True))
        for i, sample in enumerate(samples):
            search = self.searches[sample]
            search.work, search.closed = 1, lowest[i]
            if bool(clauses[i].isnan().any()) or bool((clauses[i] == torch.inf).any()):
                search.fail("a bound is not a finite number")
            elif i in broken:
                search.closed = float(clauses[i].amin())
                self._falsify(sample, broken[i], "attack")
            elif not bool(open_[i].any()):
                search.end(Outcome.CERTIFIED, "crown")
        for part in planted:
            search = self.searches[part.sample]
            if search.outcome is None:
                search.work += 1
                search.method = "alpha-crown"
                search.push(part)
        return [] if root is None else [root]

    def _plant(self, root: _Root, open_: Tensor) -> list[Subproblem]:
        """Bound the open clauses of a root's samples with slopes of their own (alpha-CROWN)."""
        numbers = list(root.place)
        place, clause = open_.nonzero(as_tuple=True)
        planted = []
        for some in torch.arange(len(place), device=place.device).split(self._at_once()):  # type: ignore[no-untyped-call]
            part = root.relus.whole(place[some])
            goal = self._goal(root, [numbers[i] for i in place[some].tolist()], clause[some])
            first = self._best_row(part, goal, start(root.relus, place[some], self.most))
            point = ascend(part, goal, first, _ROOT_STEPS, rate=_ROOT_RATE)
            for i, which in enumerate(some.tolist()):
                planted.append(
                    Subproblem(
                        numbers[int(place[which])],
                        int(clause[which]),
                        part.sign[i],
                        point.take(torch.tensor([i])),
                        float(point.lower[i]),
                    )
                )
        return planted

    def _best_row(self, part: Part, goal: Goal, point: Point) -> Point:
        """The point with all weight on the row of the highest bound."""
        if self.most == 1:
            return point
        bounds = []
        for row in range(self.most):
            weights = torch.zeros_like(point.weights)
            weights[:, row] = 1
            one = Point(point.slopes, point.multipliers, weights, point.lower)
            real = goal.offset[:, row] > -torch.inf
            bounds.append(torch.where(real, evaluate(part, goal, one), -torch.inf))
        best = torch.stack(bounds, 1).nan_to_num(-torch.inf).argmax(1, keepdim=True)
        weights = torch.zeros_like(point.weights).scatter(1, best, 1.0)
        return Point(point.slopes, point.multipliers, weights, point.lower)

    def _goal(self, root: _Root, samples: list[int], clause: Tensor) -> Goal:
        """What parts of samples have to prove, each one clause."""
        index = torch.tensor(samples, device=clause.device)
        rows = self.rows_of[clause]
        real, safe = rows >= 0, rows.clamp(min=0)
        output = self.program.output
        shape = (len(index), self.most, *self.program.shape(output))
        coefficients = self.specification.coefficients[index[:, None], safe].view(shape)
        offset = self.specification.offset[index[:, None], safe]
        size = None
        if self.most > 1:
            whole = as_interval(root.relus.known.values[output]).magnitude
            size = whole[torch.tensor([root.place[i] for i in samples], device=clause.device)]
        return Goal(output, coefficients, torch.where(real, offset, -torch.inf), size)

    def _round(self, root: _Root, parts: list[Subproblem]) -> None:
        """Split parts, or settle them where nothing is left to split."""
        device = self.ball.x.device
        samples = [part.sample for part in parts]
        place = torch.tensor([root.place[i] for i in samples], device=device)
        clause = torch.tensor([part.clause for part in parts], device=device)
        part = root.relus.restrict(place, torch.stack([p.sign for p in parts]))
        goal = self._goal(root, samples, clause)
        point = Point.stack([p.point for p in parts])
        seen = witness(part, goal, point)
        hit, x = descend(
            self.forward,
            self.specification,
            self.ball,
            torch.tensor(samples, device=device),
            seen.minimiser,
            steps=_PROBE_STEPS,
            share=0.25,
        )
        whole = (seen.score > -torch.inf).any(1)
        ended = [
            (i, *self._settle(parts[i], part.take(one), goal.take(one)))
            for i in (~whole).nonzero()[:, 0].tolist()
            for one in [torch.tensor([i], device=device)]
        ]
        children = self._children(part, goal, point, seen.score, whole, parts)
        # nothing above changed a search: it may be done again
        for i in hit.nonzero()[:, 0].tolist():
            self._falsify(samples[i], x[i], "branch-and-bound")
        for i, done, how, candidate in ended:
            search = self.searches[samples[i]]
            if candidate is not None:
                self._falsify(samples[i], candidate, "branch-and-bound")
            elif search.outcome is None and how is None:
                search.push(done)
            elif search.outcome is None:
                search.leave(done, how)
        for child in children:
            search = self.searches[child.sample]
            if search.outcome is None:
                search.work += 1
                search.method = "branch-and-bound"
                search.push(child)

    def _children(
        self,
        part: Part,
        goal: Goal,
        point: Point,
        score: Tensor,
        whole: Tensor,
        parents: list[Subproblem],
    ) -> list[Subproblem]:
        """Bound both children of each part that can be split."""
        split = whole.nonzero()[:, 0]
        if not len(split):
            return []
        neuron = choose(part.take(split), goal.take(split), point.take(split), score[split])
        twice = split.repeat_interleave(2)
        side = torch.tensor([1, -1], dtype=torch.int8, device=split.device).repeat(len(split))
        halves = part.split(twice, neuron.repeat_interleave(2), side)
        found = ascend(halves, goal.take(twice), point.take(twice), _STEPS, rate=_RATE)
        made = []
        for i, parent in enumerate(parents[k] for k in twice.tolist()):
            own = float(found.lower[i])
            lower = own if own != own else max(own, parent.lower)
            one = found.take(torch.tensor([i], device=split.device))
            made.append(Subproblem(parent.sample, parent.clause, halves.sign[i], one, lower))
        return made

    def _settle(
        self, parent: Subproblem, part: Part, goal: Goal
    ) -> tuple[Subproblem, Outcome | None, Tensor | None]:
        """Settle one part of which every sign is known.

        Returns:
            The part with its new bound; how it is left, None where it is proved; an input that
            violates the specification, if there is one.
        """
        leaf = solve(part, goal, parent.point)
        if leaf is None:
            return parent, Outcome.UNKNOWN, None
        own = float(leaf.point.lower)
        lower = own if own != own else max(own, parent.lower)
        done = Subproblem(parent.sample, parent.clause, parent.sign, leaf.point, lower)
        if not lower <= 0:
            return done, None, None
        sample = torch.tensor([parent.sample], device=self.ball.x.device)
        hit, x = descend(
            self.forward,
            self.specification,
            self.ball,
            sample,
            leaf.minimiser,
            steps=_PROBE_STEPS,
            share=0.1,
        )
        if bool(hit):
            return done, None, x[0]
        size = as_interval(part.relus.known.values[goal.start]).magnitude[part.sample]
        near = _NEAR_ZERO * (
            1 + float((goal.rows[0].abs() * size).sum(tuple(range(1, size.dim()))).max())
        )
        box = part.known.inputs.center is None
        return done, Outcome.ROUNDING if box and leaf.minimum > -near else Outcome.UNKNOWN, None

    def _falsify(self, sample: int, x: Tensor, method: str) -> None:
        self.candidates[sample] = x
        self.searches[sample].end(Outcome.FALSIFIED, method)


def _sample(part: Subproblem) -> int:
    return part.sample


def _subset(specification: Specification, index: Tensor) -> Specification:
    return Specification(
        specification.coefficients[index], specification.offset[index], specification.clause
    )
