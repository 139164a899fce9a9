"""The state of one sample's search: its open parts, its bound, its budget, and how it ended."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

from torch import Tensor

from certify.ascent import Point
from certify.result import Outcome
from certify.shelf import Kept, Shelf, Slot


@dataclass(frozen=True)
class Budget:
    """Where a search ends.

    Attributes:
        subproblems: Bounded parts of one sample, >= 1.
        seconds: Share of the time of one sample, or None. It depends on the machine: results under
            it cannot be repeated.
    """

    subproblems: int = 20_000
    seconds: float | None = None


@dataclass(frozen=True, eq=False)
class Subproblem:
    """A part of a sample's inputs, and one clause to be proved there.

    Attributes:
        sample: The sample's number in the run.
        clause: The clause.
        sign: Known signs of unstable neurons, int8 (U,).
        point: Where its bound was found; entries of one part.
        lower: The bound, or the parent's if that is higher.
    """

    sample: int
    clause: int
    sign: Tensor
    point: Point
    lower: float


@dataclass(eq=False)
class Search:
    """One sample.

    Attributes:
        sample: Its number in the run.
        budget: Where to stop.
        shelf: Keeps the open parts; several searches may share one.
        outcome: How it ended; None while it goes on.
        method: What settled it, or gave the bound.
        seconds: Its share of the time.
        work: Parts bounded.
        detail: One line for an error.
        closed: Least bound of all parts that are done with.
        left: How parts ended that could be neither proved nor split.
    """

    sample: int
    budget: Budget
    shelf: Shelf = field(default_factory=Shelf)
    outcome: Outcome | None = None
    method: str = ""
    seconds: float = 0.0
    work: int = 0
    detail: str = ""
    closed: float = math.inf
    left: set[Outcome] = field(default_factory=set)
    _open: list[tuple[float, int, int, Kept | Slot]] = field(default_factory=list)
    _serial: int = 0
    _failed: bool = False
    _taken: float = math.inf

    @property
    def lower(self) -> float:
        """The best proven bound of the least clause."""
        if self._failed or (self.closed == math.inf and not self._open):
            return -math.inf
        return min(self.closed, self._open[0][0]) if self._open else self.closed

    def push(self, part: Subproblem) -> None:
        """Add a bounded part: to be split if it is not proved."""
        if math.isnan(part.lower) or part.lower == math.inf:
            self.fail(f"a bound is not a number: {part.lower}")
        elif part.lower > 0:
            self.closed = min(self.closed, part.lower)
        else:
            # a copy: a view would keep all parts of its batch
            kept = self.shelf.put((part.sign.clone(), *part.point.values()))
            heapq.heappush(self._open, (part.lower, self._serial, part.clause, kept))
            self._serial += 1

    def leave(self, part: Subproblem, how: Outcome) -> None:
        """Close a part that cannot be split and is not proved."""
        self.closed = min(self.closed, part.lower)
        self.left.add(how)

    def take(self, most: int) -> list[Subproblem]:
        """Take the open parts of the lowest bounds, and end the search where there is none."""
        self._taken = math.inf
        spent = self.work >= self.budget.subproblems
        if self.budget.seconds is not None:
            spent = spent or self.seconds >= self.budget.seconds
        if not self._open:
            if self.left:
                unknown = Outcome.UNKNOWN in self.left
                self.end(Outcome.UNKNOWN if unknown else Outcome.ROUNDING)
            else:
                self.end(Outcome.CERTIFIED if self.lower > 0 else Outcome.UNKNOWN)
            return []
        if spent:
            self.end(Outcome.TIMEOUT)
            return []
        self._taken = self._open[0][0]
        return [self._pop() for _ in range(min(most, len(self._open)))]

    def _pop(self) -> Subproblem:
        lower, _, clause, kept = heapq.heappop(self._open)
        sign, *point = self.shelf.take(kept)
        return Subproblem(self.sample, clause, sign, Point(*point), lower)

    def end(self, outcome: Outcome, method: str = "") -> None:
        """End the search; parts in work or still open keep their say in the bound."""
        if self.outcome is not None:
            return
        self.outcome, self.method = outcome, method or self.method
        self.closed = min(self.closed, self._taken)
        if self._open:
            self.closed = min(self.closed, self._open[0][0])
            for *_, kept in self._open:
                self.shelf.drop(kept)
            self._open.clear()

    def fail(self, detail: str) -> None:
        """End the search by an error."""
        if self.outcome is None:
            self.end(Outcome.ERROR)
            self.detail, self._failed = detail, True
