"""Linear terms of VNN-LIB, evaluated exactly."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import NoReturn

from robustbench_c.errors import DataError
from robustbench_c.foreign.reading import printable
from robustbench_c.foreign.sexpr import Node

VARIABLE = re.compile(r"[XY]_(0|[1-9][0-9]{0,8})")
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,3})?"
)
_MOST_BITS = 10_000

Linear = tuple[dict[str, Fraction], Fraction]
"""Factors of variables, and a constant."""


def linear(node: Node, declared: set[str]) -> Linear:
    """Evaluate a term to factors of variables and a constant, exactly.

    Raises:
        DataError: The term is malformed, not linear, or has a variable that is not declared.
    """
    if node.atom:
        if node.atom in declared:
            return {node.atom: Fraction(1)}, Fraction(0)
        if _NUMBER.fullmatch(node.atom):
            return {}, Fraction(node.atom)
        kind = "is not declared" if VARIABLE.fullmatch(node.atom) else "is no number or variable"
        fail(node, f"{printable(node.atom)} {kind}")
    if len(node.items) < 2:
        fail(node, "a term is expected here, such as (+ Y_0 1)")
    head, *rest = node.items
    terms = [linear(term, declared) for term in rest]
    if head.atom not in _OPERATIONS:
        fail(node, f"{printable(head.atom)} is not supported in a term; known: + - * /")
    if head.atom == "-" and len(terms) == 1:
        return scaled(terms[0], Fraction(-1))
    result = terms[0]
    for term in terms[1:]:
        result = _OPERATIONS[head.atom](result, term, node)
        numbers = (*result[0].values(), result[1])
        if any((n.numerator * n.denominator).bit_length() > _MOST_BITS for n in numbers):
            fail(node, "a number has too many digits")
    return result


def added(left: Linear, right: Linear) -> Linear:
    """Return `left + right`."""
    factors = dict(left[0])
    for name, factor in right[0].items():
        factors[name] = factors.get(name, Fraction(0)) + factor
    return factors, left[1] + right[1]


def scaled(term: Linear, by: Fraction) -> Linear:
    """Return `by * term`."""
    return {name: factor * by for name, factor in term[0].items()}, term[1] * by


def _times(left: Linear, right: Linear, node: Node) -> Linear:
    if left[0] and right[0]:
        fail(node, "a product of variables is not linear")
    return scaled(left, right[1]) if left[0] else scaled(right, left[1])


def _divided(left: Linear, right: Linear, node: Node) -> Linear:
    if right[0] or not right[1]:
        fail(node, "a division by a variable, or by zero")
    return scaled(left, 1 / right[1])


_OPERATIONS: dict[str, Callable[[Linear, Linear, Node], Linear]] = {
    "+": lambda left, right, node: added(left, right),
    "-": lambda left, right, node: added(left, scaled(right, Fraction(-1))),
    "*": _times,
    "/": _divided,
}


def fail(node: Node, reason: str) -> NoReturn:
    """Refuse the file, with the line."""
    raise DataError(f"line {node.line}: {reason}")
