"""A property of a network: boxes of inputs, and the outputs that are unsafe for them.

All numbers are exact. They are rounded where they are handed to code in floating point, and always
to the safe side: the box outward and the unsafe set wider for a proof, the box inward for an
attack. Whether a counterexample counts is decided exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from certify.specification import Specification
from robustbench_c.errors import DataError

Vector = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Halfspace:
    """Outputs with `coefficients @ Y <= bound`, or `<` if strict.

    Attributes:
        coefficients: (output, factor), outputs ascending. Factors are whole numbers without a
            common divisor and none is 0, so that equal halfspaces are equal objects.
        bound: The right-hand side.
        strict: Whether the boundary is outside. A proof takes it as inside, which is sound; a
            counterexample on the boundary does not count.
    """

    coefficients: tuple[tuple[int, int], ...]
    bound: Fraction
    strict: bool = False

    def holds(self, y: list[Fraction]) -> bool:
        """Whether the outputs lie in the halfspace, exactly."""
        value = sum((factor * y[index] for index, factor in self.coefficients), Fraction(0))
        return value < self.bound if self.strict else value <= self.bound


Conjunction = tuple[Halfspace, ...]


@dataclass(frozen=True)
class Case:
    """One box of inputs, and what must not happen in it.

    Attributes:
        lower: Least value of each input.
        upper: Greatest value of each input; nowhere below `lower`.
        outputs: Number of outputs of the network.
        unsafe: The case is violated by an input in the box whose output lies in all halfspaces of
            one of these conjunctions. None of them is empty.
    """

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]
    outputs: int
    unsafe: tuple[Conjunction, ...]

    def outer(self, dtype: npt.DTypeLike = np.float64) -> tuple[Vector, Vector]:
        """Return the box rounded outward, for proofs: lower and upper, (inputs,) each."""
        return _rounded(self.lower, dtype, up=False), _rounded(self.upper, dtype, up=True)

    def inner(self, dtype: npt.DTypeLike = np.float64) -> tuple[Vector, Vector]:
        """Return the box rounded inward, for attacks: each number of `dtype` in it is in the box.

        Where no number of `dtype` lies between the two ends, lower is above upper: no input in
        `dtype` can be a counterexample.
        """
        return _rounded(self.lower, dtype, up=True), _rounded(self.upper, dtype, up=False)

    def specification(self, dtype: torch.dtype = torch.float64) -> Specification:
        """Return what has to be proved over the box: one clause for each unsafe conjunction.

        Rows are `coefficients @ Y - bound > 0`, with the bound rounded up to `dtype`.

        Raises:
            DataError: A factor is not a number of `dtype`.
        """
        rows = [(i, half) for i, conjunction in enumerate(self.unsafe) for half in conjunction]
        coefficients = torch.zeros(1, len(rows), self.outputs, dtype=dtype)
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        for row, (_, half) in enumerate(rows):
            for output, factor in half.coefficients:
                coefficients[0, row, output] = factor
                if coefficients[0, row, output].item() != factor:
                    raise DataError(f"factor {factor} of Y_{output} is not a number of {dtype}")
        bounds = _rounded([half.bound for _, half in rows], kind, up=True)
        clauses = tuple(clause for clause, _ in rows)
        return Specification(coefficients, -torch.from_numpy(bounds)[None], clauses)

    def holds(self, x: npt.ArrayLike, y: npt.ArrayLike) -> bool:
        """Whether input `x` lies in the box and output `y` in the unsafe set; see `Property`."""
        inputs, outputs = _exact(x, len(self.lower), "inputs"), _exact(y, self.outputs, "outputs")
        if inputs is None or outputs is None:
            return False
        inside = all(
            low <= value <= high
            for low, value, high in zip(self.lower, inputs, self.upper, strict=True)
        )
        return inside and any(all(half.holds(outputs) for half in each) for each in self.unsafe)


@dataclass(frozen=True)
class Property:
    """What is asked: is there an input in the box of a case whose output is unsafe for that case?

    Attributes:
        inputs: Number of inputs, in C order of the network's input.
        outputs: Number of outputs.
        cases: Boxes, each with unsafe outputs of its own.
    """

    inputs: int
    outputs: int
    cases: tuple[Case, ...]

    def holds(self, x: npt.ArrayLike, y: npt.ArrayLike) -> bool:
        """Whether (x, y) is a counterexample, without any tolerance.

        Args:
            x: Input, `inputs` numbers in any shape.
            y: The network's output for it, `outputs` numbers in any shape. NaN is no
                counterexample, and neither is an infinite number.

        Raises:
            DataError: `x` or `y` has another number of entries.
        """
        return any(case.holds(x, y) for case in self.cases)


def _exact(values: npt.ArrayLike, count: int, what: str) -> list[Fraction] | None:
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if array.size != count:
        raise DataError(f"{array.size} {what}, but the property speaks of {count}")
    if not np.isfinite(array).all():
        return None
    return [Fraction(number) for number in array.tolist()]


def _rounded(values: Iterable[Fraction], dtype: npt.DTypeLike, *, up: bool) -> Vector:
    return np.array([_round(value, np.dtype(dtype), up) for value in values], dtype=dtype)


def _round(value: Fraction, dtype: np.dtype[Any], up: bool) -> Any:
    """Round to the next number of `dtype`, up or down; values are within float32's range."""
    number = dtype.type(float(value))
    away = dtype.type(math.inf if up else -math.inf)
    while (Fraction(float(number)) < value) if up else (Fraction(float(number)) > value):
        number = np.nextafter(number, away)
    return number
