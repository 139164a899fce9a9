"""S-expressions: the brackets and words that VNN-LIB is written in."""

from __future__ import annotations

import re
from dataclasses import dataclass

from robustbench_c.errors import DataError
from robustbench_c.foreign.reading import printable

_TOKEN = re.compile(r'[ \t\r\n]+|;[^\n]*|([()])|("(?:[^"]|"")*"|\|[^|]*\||[^\s()";|]+)')
_DEEPEST = 100


@dataclass(frozen=True)
class Node:
    """A word, or a list in brackets.

    Attributes:
        line: Where it starts, from 1.
        atom: The word; empty for a list.
        items: What is in the brackets; empty for a word.
    """

    line: int
    atom: str = ""
    items: tuple[Node, ...] = ()


def parse(text: str) -> list[Node]:
    """Return the lists at the top level of a text.

    Raises:
        DataError: A bracket is missing or too many, a word stands outside of brackets, or the
            nesting is deeper than 100.
    """
    lists: list[list[Node]] = [[]]
    starts: list[int] = []
    line, place = 1, 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise DataError(f"line {line}: {printable(text[place])} is not expected here")
        bracket, word = match.groups()
        if bracket == "(":
            if len(starts) == _DEEPEST:
                raise DataError(f"line {line}: brackets are nested deeper than {_DEEPEST}")
            lists.append([])
            starts.append(line)
        elif bracket == ")":
            if not starts:
                raise DataError(f"line {line}: a closing bracket too many")
            items = tuple(lists.pop())
            lists[-1].append(Node(starts.pop(), items=items))
        elif word:
            if not starts:
                raise DataError(f"line {line}: {printable(word)} stands outside of brackets")
            lists[-1].append(Node(line, atom=word))
        line += match[0].count("\n")
        place = match.end()
    if starts:
        raise DataError(f"line {starts[-1]}: this bracket is never closed")
    return lists[0]
