"""The methods that prove predictions robust, by name, cheapest first."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from attacks import memory
from attacks.balls import Ball
from attacks.classifier import exact_passes
from attacks.threat import ThreatModel
from certify import search
from certify.alpha import alpha_bounds
from certify.ball import InputSet
from certify.bind import bind_model
from certify.branch import branch_and_bound
from certify.condense import condense
from certify.crown import analyse, output_bounds
from certify.errors import CertifyError, UnsupportedError
from certify.program import Program
from certify.result import Certificates, Outcome
from certify.rounding import OFF, Rounding
from certify.specification import Specification, margins
from certify.trace import trace_model

Method = Literal["ibp", "crown-ibp", "crown", "alpha-crown", "complete"]
METHODS: tuple[Method, ...] = get_args(Method)

_BYTES = 256 << 20
"""Memory for what is known of the nodes of the samples at hand."""


@dataclass(frozen=True)
class Budget:
    """How much work one sample is worth.

    Attributes:
        iterations: Gradient steps on the slopes of alpha-crown.
        subproblems: Subproblems that complete may bound.
        seconds: Seconds, or None. A run with such a budget cannot be repeated.
    """

    iterations: int = 20
    subproblems: int = 2000
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.subproblems < 1:
            raise CertifyError("a budget of less than one iteration or subproblem proves nothing")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise CertifyError(f"a budget of {self.seconds} seconds is not positive and finite")


class Certifier:
    """A model, traced once, and ready to be bounded.

    Attributes:
        program: Its logits as a function of `x`.
        classes: The number of logits.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        """Trace a model.

        Args:
            model: In eval mode: (batch, *shape) to (batch, classes).
            x: Samples (n, *shape), n >= 1; shape, dtype and device count.

        Raises:
            UnsupportedError: The model holds what no rule is there for.
        """
        with exact_passes(), torch.no_grad():
            self.program: Program = condense(bind_model(model, trace_model(model, x[:2])))
            self.model = model
            output = self.program.graph.nodes[self.program.output]
            shape = output.shape[1:]
            if len(shape) != 1 or output.shape[0] != 2:  # at batch size 2
                found = (output.shape[0] // 2, *shape) if output.shape[0] != 2 else shape
                raise UnsupportedError(f"logits have the shape {found}: they have to be (classes,)")
            (self.classes,) = shape
            self._bounds(
                "crown-ibp", InputSet.around(x[:1], ThreatModel.box("linf", 0.0)), None, Budget()
            )

    def certify(
        self,
        method: Method,
        x: Tensor,
        y: Tensor,
        ids: Tensor,
        threat: ThreatModel,
        budget: Budget | None = None,
        seed: int = 0,
    ) -> Certificates:
        """Try to prove that no input of the threat model is misclassified.

        Args:
            method: One of `METHODS`.
            x: Samples (n, *shape).
            y: Their classes, int64 (n,).
            ids: Their ids, int64 (n,).
            threat: What the attacker may do, on the device of `x`.
            budget: Of one sample.
            seed: Of the attack inside of `complete`.

        Returns:
            One result a sample. What goes wrong with a bound is the outcome `error`.

        Raises:
            TooLittleMemoryError: Memory runs out with one sample.
            ValueError: There is no such method.
        """
        if method not in METHODS:
            raise ValueError(f"no method {method!r}: give one of {', '.join(METHODS)}")
        spent = budget or Budget()

        def work() -> Certificates:
            found = []
            for part in self._parts(len(x)):
                some = x[part], y[part], ids[part]
                if method == "complete":
                    found.append(self._complete(*some, threat, spent, seed))
                else:
                    found.append(self._part(method, some[0], some[1], threat, spent))
            return joined(found, x)

        with exact_passes(), torch.no_grad():
            return memory.halving(work, f"bounds by {method}", x.device)

    def _complete(
        self, x: Tensor, y: Tensor, ids: Tensor, threat: ThreatModel, budget: Budget, seed: int
    ) -> Certificates:
        return branch_and_bound(
            self.program,
            InputSet.around(x, threat),
            margins(y, self.classes, x.dtype),
            self.model,
            Ball.around(threat, x),
            search.Budget(budget.subproblems, budget.seconds),
            seed=seed,
            ids=ids.tolist(),
        )

    def _part(
        self, method: Method, x: Tensor, y: Tensor, threat: ThreatModel, budget: Budget
    ) -> Certificates:
        started = time.perf_counter()
        specification = margins(y, self.classes, x.dtype)
        inputs = InputSet.around(x, threat)
        try:
            lower = self._bounds(method, inputs, specification, budget)
            again = partial(self._unrounded, method, inputs, specification, budget)
            outcome = judged(lower, again)
            detail = ["" if o != Outcome.ERROR else "the bound is not a number" for o in outcome]
        except UnsupportedError:
            raise
        except (RuntimeError, ValueError, CertifyError) as error:
            if memory.exhausted(error):
                raise
            lower = torch.full((len(x),), -torch.inf, dtype=torch.float64)
            line = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            outcome, detail = [Outcome.ERROR] * len(x), [line] * len(x)
        seconds = (time.perf_counter() - started) / max(1, len(x))
        return Certificates(
            tuple(outcome),
            (method,) * len(x),
            lower.cpu().nan_to_num(-torch.inf, torch.inf, -torch.inf),
            torch.full((len(x),), seconds, dtype=torch.float64),
            torch.ones(len(x), dtype=torch.int64),
            tuple(detail),
        )

    def _bounds(
        self,
        method: Method,
        inputs: InputSet,
        specification: Specification | None,
        budget: Budget,
        rounding: Rounding | None = None,
    ) -> Tensor:
        """Lower bounds of the worst margin, float64 (n,)."""
        if specification is None:
            label = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.box.lower.device)
            specification = margins(label, self.classes, inputs.box.lower.dtype)
        known = analyse(
            self.program,
            inputs,
            tighten=method in ("crown", "alpha-crown"),
            lines=method != "ibp",
            rounding=rounding,
        )
        if method == "alpha-crown":
            rows = alpha_bounds(known, specification, steps=budget.iterations)
        else:
            rows = output_bounds(known, specification)
        return specification.per_clause(rows).amin(1)

    def _unrounded(
        self,
        method: Method,
        inputs: InputSet,
        specification: Specification,
        budget: Budget,
        near: Tensor,
    ) -> Tensor:
        """The bounds of some samples, were arithmetic exact."""
        some = Specification(
            specification.coefficients[near], specification.offset[near], specification.clause
        )
        return self._bounds(method, inputs[near], some, budget, OFF)

    @property
    def numbers(self) -> int:
        """Numbers that are known of a sample."""
        return self.program.numbers

    def _parts(self, samples: int) -> list[slice]:
        """Samples in parts that fit in memory."""
        size = max(1, min(memory.room(256), memory.room(_BYTES) // (40 * self.numbers)))
        return [slice(i, i + size) for i in range(0, samples, size)]


def judged(lower: Tensor, unrounded: Callable[[Tensor], Tensor]) -> list[Outcome]:
    """Outcomes from lower bounds of the margin with rounding taken off.

    Args:
        lower: float64, (n,).
        unrounded: Gives the bounds of some samples (by index) with nothing taken off; asked of
            those that are close to zero.
    """
    outcome = [
        Outcome.ERROR
        if value != value or value == math.inf
        else Outcome.CERTIFIED
        if value > 0
        else Outcome.UNKNOWN
        for value in lower.tolist()
    ]
    near = ((lower <= 0) & (lower > -_NEAR)).nonzero()[:, 0]
    if len(near):
        for index, value in zip(near.tolist(), unrounded(near).tolist(), strict=True):
            if value > 0:
                outcome[index] = Outcome.ROUNDING
    return outcome


_NEAR = 1.0
"""Bounds further below zero than this are not for want of rounding."""


def joined(parts: list[Certificates], x: Tensor) -> Certificates:
    """The results of consecutive samples as one."""
    if not parts:
        none = torch.zeros(0, dtype=torch.float64)
        return Certificates((), (), none, none, torch.zeros(0, dtype=torch.int64), ())
    candidates = None
    if any(part.candidates is not None for part in parts):
        start, pieces = 0, []
        for part in parts:
            piece = x[start : start + len(part.outcome)]
            pieces.append(piece if part.candidates is None else part.candidates)
            start += len(part.outcome)
        candidates = torch.cat(pieces)
    return Certificates(
        tuple(o for part in parts for o in part.outcome),
        tuple(m for part in parts for m in part.method),
        torch.cat([part.lower for part in parts]),
        torch.cat([part.seconds for part in parts]),
        torch.cat([part.work for part in parts]),
        tuple(d for part in parts for d in part.detail),
        candidates,
    )
