"""Linear terms of VNN-LIB, evaluated exactly."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from functools import reduce
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
    first, *more = [linear(term, declared) for term in rest]
    match head.atom:
        case "+":
            return total([first, *more], node)
        case "-" if not more:
            return scaled(first, Fraction(-1), node)
        case "-":
            return total([first, *(scaled(term, Fraction(-1), node) for term in more)], node)
        case "*":
            return reduce(lambda left, right: _times(left, right, node), more, first)
        case "/":
            return reduce(lambda left, right: _divided(left, right, node), more, first)
    fail(node, f"{printable(head.atom)} is not supported in a term; known: + - * /")


def total(terms: Iterable[Linear], node: Node) -> Linear:
    """Return the sum."""
    factors: dict[str, Fraction] = {}
    constant = Fraction(0)
    for term in terms:
        for name, factor in term[0].items():
            factors[name] = _checked(factors.get(name, Fraction(0)) + factor, node)
        constant = _checked(constant + term[1], node)
    return factors, constant


def scaled(term: Linear, by: Fraction, node: Node) -> Linear:
    """Return `by * term`."""
    factors = {name: _checked(factor * by, node) for name, factor in term[0].items()}
    return factors, _checked(term[1] * by, node)


def _times(left: Linear, right: Linear, node: Node) -> Linear:
    if left[0] and right[0]:
        fail(node, "a product of variables is not linear")
    return scaled(left, right[1], node) if left[0] else scaled(right, left[1], node)


def _divided(left: Linear, right: Linear, node: Node) -> Linear:
    if right[0] or not right[1]:
        fail(node, "a division by a variable, or by zero")
    return scaled(left, 1 / right[1], node)


def _checked(number: Fraction, node: Node) -> Fraction:
    """Stop numbers that would grow until time or memory ends."""
    if number.numerator.bit_length() + number.denominator.bit_length() > _MOST_BITS:
        fail(node, "a number has too many digits")
    return number


def fail(node: Node, reason: str) -> NoReturn:
    """Refuse the file, with the line."""
    raise DataError(f"line {node.line}: {reason}")
