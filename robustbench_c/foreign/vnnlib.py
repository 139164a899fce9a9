"""Properties in VNN-LIB 1.0, the language of the verification competition (a part of SMT-LIB).

Each input needs a lower and an upper bound. What is asserted is brought into disjunctive normal
form, so that an input bound inside of an `or` holds for its own branch and for no other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from robustbench_c.errors import DataError
from robustbench_c.foreign.linear import VARIABLE, Linear, fail, linear, scaled, total
from robustbench_c.foreign.property import Case, Conjunction, Halfspace, Property
from robustbench_c.foreign.reading import printable, read_limited
from robustbench_c.foreign.sexpr import Node, parse

_MOST_BYTES = 1 << 28
_MOST_BRANCHES = 100_000
_MOST_BOUNDS = 10_000_000  # branches times inputs
_IGNORED = {"set-logic", "set-info", "set-option", "check-sat", "get-model", "exit"}
_LARGEST = Fraction(3 * 10**38)  # within float32's range


def load_vnnlib(path: Path) -> Property:
    """Read a property from a `.vnnlib` file, or `.vnnlib.gz`.

    Raises:
        DataError: The file cannot be read, is not VNN-LIB, or asks what is not supported; names
            the line.
    """
    path = Path(path)
    content = read_limited(path, _MOST_BYTES, DataError)
    try:
        return parse_vnnlib(content.decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def parse_vnnlib(text: str) -> Property:
    """Read a property from the text of a VNN-LIB file; see `load_vnnlib`."""
    declared: set[str] = set()
    base: list[_Atom] = []
    branches: list[tuple[_Atom, ...]] = [()]
    for command in parse(text):
        items = command.items
        head = items[0].atom if items else ""
        if head == "assert":
            if len(items) != 2:
                fail(command, "assert takes one formula")
            choices = _formula(items[1], declared)
            if len(choices) == 1:
                base.extend(choices[0])
            else:
                branches = _product(branches, choices, command)
        elif head in ("declare-const", "declare-fun"):
            _declare(command, declared)
        elif head not in _IGNORED:
            fail(command, f"command {printable(head)} is not supported")
    inputs, outputs = (_count(declared, letter) for letter in "XY")
    if inputs * len(branches) > _MOST_BOUNDS:
        raise DataError(f"{len(branches)} branches of {inputs} inputs are too many")
    return Property(inputs, outputs, _cases(base, branches, inputs, outputs))


@dataclass(frozen=True)
class _Atom:
    """A linear inequality: factors @ variables + constant <= 0, or < 0 if strict."""

    factors: tuple[tuple[str, Fraction], ...]
    constant: Fraction
    strict: bool
    line: int


def _declare(command: Node, declared: set[str]) -> None:
    items = command.items
    if items[0].atom == "declare-fun" and len(items) == 4 and items[2] == Node(items[2].line):
        items = (items[0], items[1], items[3])
    if len(items) != 3 or items[2].atom != "Real":
        fail(command, "only constants of type Real can be declared")
    name = items[1].atom
    if not VARIABLE.fullmatch(name):
        fail(command, f"variable {printable(name)} is neither an input X_i nor an output Y_j")
    if name in declared:
        fail(command, f"{name} is declared twice")
    declared.add(name)


def _count(declared: set[str], letter: str) -> int:
    count = sum(name[0] == letter for name in declared)
    if not count:
        raise DataError(f"no {letter}_0 is declared")
    for index in range(count):
        if f"{letter}_{index}" not in declared:
            raise DataError(f"{count} {letter}s are declared, but {letter}_{index} is not")
    return count


def _formula(node: Node, declared: set[str]) -> list[tuple[_Atom, ...]]:
    """Return the disjunctive normal form: at least one conjunction of atoms."""
    if not node.items:
        fail(node, "a formula is expected here, such as (<= X_0 1)")
    head, *rest = node.items
    if head.atom in ("<=", ">=", "<", ">"):
        if len(rest) < 2:
            fail(node, f"{head.atom} takes two terms")
        terms = [linear(term, declared) for term in rest]
        return [tuple(_compare(head.atom, *pair, node) for pair in pairwise(terms))]
    if head.atom not in ("and", "or"):
        fail(node, f"{printable(head.atom)} is not supported; known: and, or, <=, >=, <, >")
    if not rest:
        fail(node, f"an empty ({head.atom})")
    parts = [_formula(part, declared) for part in rest]
    if head.atom == "or":
        return [conjunction for part in parts for conjunction in part]
    single = tuple(atom for part in parts if len(part) == 1 for atom in part[0])
    result = [single]
    for part in parts:
        if len(part) > 1:
            result = _product(result, part, node)
    return result


def _product(
    left: list[tuple[_Atom, ...]], right: list[tuple[_Atom, ...]], node: Node
) -> list[tuple[_Atom, ...]]:
    atoms = len(left) * sum(map(len, right)) + len(right) * sum(map(len, left))
    if len(left) * len(right) > _MOST_BRANCHES or atoms > _MOST_BOUNDS:
        fail(node, "too many branches once each `and` of `or`s is expanded")
    return [one + other for one in left for other in right]


def _compare(relation: str, left: Linear, right: Linear, node: Node) -> _Atom:
    if relation in (">=", ">"):
        left, right = right, left
    factors, constant = total([left, scaled(right, Fraction(-1), node)], node)
    kept = tuple(sorted((name, factor) for name, factor in factors.items() if factor))
    letters = {name[0] for name, _ in kept}
    strict = relation in ("<", ">")
    if not kept:
        fail(node, "an inequality without variables")
    if letters == {"X", "Y"}:
        fail(node, "an inequality between inputs and outputs is not supported")
    if letters == {"X"} and len(kept) > 1:
        fail(node, "an inequality between inputs is not supported, only bounds of one input")
    if letters == {"X"} and strict:
        fail(node, "a strict bound of an input is not supported; write <= or >=")
    return _Atom(kept, constant, strict, node.line)


def _cases(
    base: list[_Atom], branches: list[tuple[_Atom, ...]], inputs: int, outputs: int
) -> tuple[Case, ...]:
    """Split each branch into a box and halfspaces, and gather those of equal boxes."""
    box = _Box([None] * inputs, [None] * inputs)
    common = [half for atom in base if (half := box.apply(atom))]
    cases: dict[tuple[tuple[Fraction, ...], tuple[Fraction, ...]], list[Conjunction]] = {}
    for branch in branches:
        own = _Box(box.lower.copy(), box.upper.copy())
        halves = [*common, *(half for atom in branch if (half := own.apply(atom)))]
        if not halves:
            raise DataError("nothing is asserted of the outputs")
        cases.setdefault(own.closed(), []).append(tuple(dict.fromkeys(halves)))
    return tuple(
        Case(lower, upper, outputs, tuple(dict.fromkeys(unsafe)))
        for (lower, upper), unsafe in cases.items()
    )


@dataclass(frozen=True)
class _Box:
    """The bounds of one branch; None where there is none yet."""

    lower: list[Fraction | None]
    upper: list[Fraction | None]

    def apply(self, atom: _Atom) -> Halfspace | None:
        """Take in a bound of an input, or return a halfspace of outputs."""
        name, factor = atom.factors[0]
        if name[0] == "Y":
            return _halfspace(atom)
        index, bound = int(name[2:]), -atom.constant / factor
        if abs(bound) > _LARGEST:
            raise DataError(f"line {atom.line}: the bound of {name} is beyond 3e38")
        if factor > 0:
            old = self.upper[index]
            self.upper[index] = bound if old is None else min(old, bound)
        else:
            old = self.lower[index]
            self.lower[index] = bound if old is None else max(old, bound)
        return None

    def closed(self) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
        lower, upper = [], []
        for index, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            if low is None or high is None:
                raise DataError(f"X_{index} has no {'lower' if low is None else 'upper'} bound")
            if low > high:
                raise DataError(
                    f"the box of X_{index} is empty: at least {float(low)}, at most {float(high)}"
                )
            lower.append(low)
            upper.append(high)
        return tuple(lower), tuple(upper)


def _halfspace(atom: _Atom) -> Halfspace:
    whole = math.lcm(*(factor.denominator for _, factor in atom.factors))
    scale = Fraction(whole, math.gcd(*(int(factor * whole) for _, factor in atom.factors)))
    factors = sorted((int(name[2:]), int(factor * scale)) for name, factor in atom.factors)
    bound = -atom.constant * scale
    numbers = [bound, *(Fraction(factor) for _, factor in factors)]
    if any(abs(number) > _LARGEST for number in numbers):
        raise DataError(f"line {atom.line}: a number is beyond 3e38")
    return Halfspace(tuple(factors), bound, atom.strict)
