"""JSON that means the same to every reader: no number twice, no NaN, no endless nesting."""

from __future__ import annotations

import json
import re
from typing import Any

from leaderboards.errors import RecordError

MAX_DEPTH = 64
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


def check_json(data: bytes) -> None:
    """Check a JSON file that anybody may have written.

    Raises:
        RecordError: Not UTF-8, not JSON, a name twice in one object (readers differ in which they
            take), NaN or Infinity, a number of thousands of digits, or nested too deep.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8 at byte {error.start}") from None
    _check_depth(text)
    try:
        json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse, parse_float=_finite)
    except RecordError:
        raise
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON: {error}") from None


def _check_depth(text: str) -> None:
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise RecordError(f"nested deeper than {MAX_DEPTH}")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RecordError(f"'{twice}' is there twice in one object")
    return found


def _refuse(constant: str) -> None:
    raise RecordError(f"the number {constant}, which JSON has not")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise RecordError(f"the number {text[:20]}, which is beyond float64")
    return number
