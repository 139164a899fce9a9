"""Answering a property of a network: a counterexample, or a proof that there is none.

Cheapest first, case by case: search for a counterexample, intervals, CROWN, and then branch and
bound, on the inputs where they are few, on the signs of ReLUs otherwise.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from attacks.balls import Ball
from attacks.classifier import exact_passes
from attacks.threat import ThreatModel
from certify.ball import InputSet
from certify.bind import bind_model
from certify.branch import branch_and_bound
from certify.crown import analyse, output_bounds
from certify.descent import descend, violation
from certify.input_split import split_inputs
from certify.interval import Interval
from certify.program import Program
from certify.result import Certificates, Outcome
from certify.search import Budget
from certify.specification import Specification
from certify.trace import trace_model
from robustbench_c.errors import DataError
from robustbench_c.foreign.onnx_model import OnnxModel
from robustbench_c.foreign.property import Case, Property, Vector

FEW_INPUTS = 10
"""Up to so many inputs that are no points, boxes are split; otherwise signs of ReLUs."""

_STARTS, _ROUNDS = 64, 8
_STEPS = 40


class Verdict(StrEnum):
    """How a question ended. No two of them are ever merged."""

    SAT = "sat"
    """There is a counterexample; it was replayed exactly."""
    UNSAT = "unsat"
    """There is none: proved for every input of the box, in real numbers and in floating point."""
    UNKNOWN = "unknown"
    """All methods ran to their end and settled nothing."""
    TIMEOUT = "timeout"
    """The time, or another budget, ended first."""
    ERROR = "error"
    """Something failed; `detail` says what."""


@dataclass(frozen=True, eq=False)
class Verification:
    """The answer to one question.

    Attributes:
        verdict: See `Verdict`.
        method: What settled it, or what was last at work.
        seconds: Time it took.
        boxes: Boxes or subproblems that were bounded.
        detail: One line; empty where there is nothing to say.
        x: For `sat`, the counterexample in C order, float64 and exactly a number of the network's
            type, (inputs,).
        y: The network's output for it, (outputs,).
    """

    verdict: Verdict
    method: str
    seconds: float
    boxes: int = 0
    detail: str = ""
    x: Vector | None = None
    y: Vector | None = None


def verify(
    model: OnnxModel,
    asked: Property,
    *,
    timeout: float | None = None,
    subproblems: int = 10_000_000,
    seed: int = 0,
) -> Verification:
    """Answer a property of a network.

    It is `sat` if one of its cases is, and `unsat` if all are.

    Args:
        model: The network, on the CPU.
        asked: The property.
        timeout: Seconds, or None. It is looked at between steps of a second or so.
        subproblems: Boxes or subproblems that may be bounded for each case.
        seed: Of the search for counterexamples.

    Returns:
        The answer. What fails inside is the verdict `error`, never `unknown`.

    Raises:
        DataError: Network and property do not fit, or the timeout is not positive.
    """
    if (math.prod(model.input_shape), model.classes) != (asked.inputs, asked.outputs):
        raise DataError(
            f"the property speaks of {asked.inputs} inputs and {asked.outputs} outputs, but the "
            f"network has {math.prod(model.input_shape)} and {model.classes}"
        )
    if timeout is not None and not 0 < timeout < math.inf:
        raise DataError(f"a timeout of {timeout} seconds is not positive and finite")
    question = _Question(model, asked, timeout, subproblems, seed)
    with exact_passes(), torch.no_grad():
        return question.answer()


_SEVERITY = (Verdict.UNSAT, Verdict.UNKNOWN, Verdict.TIMEOUT, Verdict.ERROR, Verdict.SAT)

_VERDICTS = {
    Outcome.CERTIFIED: Verdict.UNSAT,
    Outcome.FALSIFIED: Verdict.SAT,
    Outcome.UNKNOWN: Verdict.UNKNOWN,
    Outcome.ROUNDING: Verdict.UNKNOWN,
    Outcome.TIMEOUT: Verdict.TIMEOUT,
    Outcome.ERROR: Verdict.ERROR,
}


class _Question:
    """One network, one property."""

    def __init__(
        self,
        model: OnnxModel,
        asked: Property,
        timeout: float | None,
        subproblems: int,
        seed: int,
    ) -> None:
        self.model, self.asked, self.timeout = model, asked, timeout
        self.subproblems, self.seed = subproblems, seed
        self.started = time.perf_counter()
        self.method, self.boxes = "attack", 0
        self.found: tuple[Tensor, Tensor] | None = None

    def answer(self) -> Verification:
        """Attack all cases, then try to prove each; the worst answer counts, but `sat` at once."""
        verdicts, details = [Verdict.UNSAT], [""]
        try:
            for number, case in enumerate(self.asked.cases):
                if self._attack(case, number):
                    return self._result(Verdict.SAT)
            program = self._traced()
            for number, case in enumerate(self.asked.cases):
                verdict, detail = self._prove(program, case, len(self.asked.cases) - number)
                if verdict is Verdict.SAT:
                    return self._result(verdict)
                verdicts.append(verdict)
                details.append(detail)
        except Exception as error:  # whatever failed, it is neither unknown nor a time-out
            line = " ".join(str(error).split()) or type(error).__name__
            return self._result(Verdict.ERROR, line[:500])
        worst = max(range(len(verdicts)), key=lambda i: _SEVERITY.index(verdicts[i]))
        return self._result(verdicts[worst], details[worst])

    def _attack(self, case: Case, number: int) -> bool:
        """Search the box of a case from many starts."""
        legal = self._box(case.inner(self._kind()))
        if bool((legal.lower > legal.upper).any()):
            return False  # no number of the network's type lies in the box
        specification = case.specification(self.model.dtype)
        generator = torch.Generator().manual_seed((self.seed + (number << 40)) % 2**63)
        for _ in range(_ROUNDS):
            if self._left() <= 0:
                return False
            share = torch.rand(
                _STARTS, *self.model.input_shape, generator=generator, dtype=self.model.dtype
            )
            share[0] = 0.5
            x = legal.lower + share * (legal.upper - legal.lower)
            x = descend(self.model, specification, x, legal, _STEPS)
            for index in (violation(specification, self.model(x)) <= 0).nonzero()[:, 0].tolist():
                if self._confirmed(x[index : index + 1]):
                    return True
        return False

    def _confirmed(self, x: Tensor) -> bool:
        """Whether an input (1, *shape) is a counterexample: alone, exactly, without tolerance."""
        y = self.model(x)
        if not self.asked.holds(x.double().numpy(), y.double().numpy()):
            return False
        self.found = (x, y)
        return True

    def _prove(self, program: Program, case: Case, cases: int) -> tuple[Verdict, str]:
        """Settle one case, with a fair share of the time that is left for so many of them."""
        box = self._box(case.outer(self._kind()))
        inputs, specification = InputSet(box), case.specification(self.model.dtype)
        for method in ("ibp", "crown"):
            if (seconds := self._left() / cases) <= 0:
                return Verdict.TIMEOUT, f"before {method}"
            self.method = method
            known = analyse(program, inputs, tighten=method == "crown", lines=method == "crown")
            rows = output_bounds(known, specification)
            self.boxes += 1
            if bool(rows.isnan().any()):
                return Verdict.ERROR, "the bound is not a number"
            if bool((specification.per_clause(rows) > 0).all()):
                return Verdict.UNSAT, ""
        budget = Budget(self.subproblems, None if seconds == math.inf else seconds)
        legal = self._box(case.inner(self._kind()))
        if int((box.upper > box.lower).sum()) <= FEW_INPUTS:
            self.method = "input-split"
            found = split_inputs(
                program,
                inputs,
                specification,
                self.model,
                budget=budget,
                legal=legal,
                confirm=self._confirmed,
            )
        else:
            self.method = "complete"
            found = self._split_signs(program, inputs, specification, legal, budget)
        self.boxes += int(found.work[0])
        return _VERDICTS[found.outcome[0]], found.detail[0]

    def _split_signs(
        self,
        program: Program,
        inputs: InputSet,
        specification: Specification,
        legal: Interval,
        budget: Budget,
    ) -> Certificates:
        """Branch and bound on ReLUs; what it falsifies counts once it is confirmed."""
        if bool((legal.lower > legal.upper).any()):
            legal = Interval(inputs.box.lower, inputs.box.lower)
        width = (legal.upper - legal.lower)[0]
        threat = ThreatModel(
            "linf", 0.5, legal.lower[0], legal.upper[0], scale=torch.where(width > 0, width, 1.0)
        )
        middle = legal.center.clamp(legal.lower, legal.upper)
        ball = Ball(threat, middle, legal.lower, legal.upper)
        found = branch_and_bound(
            program, inputs, specification, self.model, ball, budget, seed=self.seed
        )
        falsified = found.outcome[0] is Outcome.FALSIFIED
        if falsified and (found.candidates is None or not self._confirmed(found.candidates)):
            return replace(found, outcome=(Outcome.UNKNOWN,), detail=("a counterexample fails",))
        return found

    def _traced(self) -> Program:
        box = self._box(self.asked.cases[0].outer(self._kind()))
        return bind_model(self.model, trace_model(self.model, box.center))

    def _box(self, ends: tuple[Vector, Vector]) -> Interval:
        lower, upper = (torch.from_numpy(end).view(1, *self.model.input_shape) for end in ends)
        return Interval(lower, upper)

    def _kind(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    def _left(self) -> float:
        if self.timeout is None:
            return math.inf
        return self.timeout - (time.perf_counter() - self.started)

    def _result(self, verdict: Verdict, detail: str = "") -> Verification:
        x, y = self.found if verdict is Verdict.SAT and self.found else (None, None)
        return Verification(
            verdict,
            self.method,
            time.perf_counter() - self.started,
            self.boxes,
            detail,
            None if x is None else x.double().flatten().numpy(),
            None if y is None else y.double().flatten().numpy(),
        )
