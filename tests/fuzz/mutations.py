"""What is done to sound files: bytes, words, JSON and tables of settings, changed at random."""

from __future__ import annotations

import copy
import io
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

Drawn = st.SearchStrategy[bytes]
_PLACE = st.integers(0, 2**16 - 1)
NASTY = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**40, -(10**40), 0.5, 1e308, -0.0),
    *(float("nan"), float("inf"), "", " ", "a", "..", "/", "../x", "x" * 3000, "0-9", "\0"),
    *("\x1b[31m", "\ud800", "é", "NaN", "1e999", [], {}, [[]], [{}], {"": {}}, [None], [0] * 50),
    *(json.loads("[" * 60 + "]" * 60), "2026-01-01T00:00:00Z", "f" * 64, "linf", "clean", "pgd"),
)
"""Values that no field expects."""
_WORDS = re.compile(r"\s+|[A-Za-z_][\w.-]*|[\d.eE+-]+|.", re.DOTALL)


def of_bytes(seeds: Sequence[bytes]) -> Drawn:
    """Flip, insert, delete, repeat and cut bytes."""
    change = st.tuples(st.sampled_from("fidrcz"), _PLACE, _PLACE, st.binary(max_size=8))
    return st.builds(_spoil, st.sampled_from(seeds), st.lists(change, min_size=1, max_size=5))


def _spoil(data: bytes, changes: list[tuple[str, int, int, bytes]]) -> bytes:
    for kind, first, second, new in changes:
        at = first * (len(data) + 1) >> 16
        length = (second & 63) + 1
        if kind == "f" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << (second & 7))]) + data[at + 1 :]
        elif kind == "i":
            data = data[:at] + new + data[at:]
        elif kind == "d":
            data = data[:at] + data[at + length :]
        elif kind == "r":
            data = data[: at + length] + data[at:]
        elif kind == "c":
            data = data[:at]
        elif kind == "z":
            data = data[:at] + new[:1] * length + data[at + length :]
    return data


def of_member(archive: bytes, name: str) -> Drawn:
    """Spoil one entry of a .zip whose checksums are right."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        held = {entry: opened.read(entry) for entry in opened.namelist()}

    def packed(content: bytes) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as made:
            for entry, whole in held.items():
                made.writestr(entry, content if entry == name else whole)
        return out.getvalue()

    return of_bytes([held[name]]).map(packed)


def of_words(seeds: Sequence[str], nasty: Sequence[str]) -> Drawn:
    """Take out, repeat, exchange and replace words, then perhaps bytes."""
    change = st.tuples(st.sampled_from("odxnc"), _PLACE, _PLACE, st.sampled_from(nasty))
    texts = st.builds(_reword, st.sampled_from(seeds), st.lists(change, min_size=1, max_size=6))
    encoded = texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
    return st.one_of(encoded, encoded, of_bytes([seed.encode() for seed in seeds]))


def _reword(text: str, changes: list[tuple[str, int, int, str]]) -> str:
    words = _WORDS.findall(text)
    for kind, first, second, new in changes:
        at, other = (place * (len(words) + 1) >> 16 for place in (first, second))
        if kind == "o":
            del words[at : at + 1 + other % 4]
        elif kind == "d":
            words[at:at] = words[at : at + 1 + other % 40]
        elif kind == "x" and at < len(words) and other < len(words):
            words[at], words[other] = words[other], words[at]
        elif kind == "n":
            words[at : at + 1] = [new]
        elif kind == "c":
            del words[at:]
    return "".join(words)


def of_json(seeds: Sequence[Any]) -> st.SearchStrategy[Any]:
    """Take out, repeat, exchange and replace values, and rename keys."""
    change = st.tuples(st.sampled_from("odxnnk"), _PLACE, _PLACE, st.integers(0, len(NASTY) - 1))
    return st.builds(_alter, st.sampled_from(seeds), st.lists(change, min_size=1, max_size=4))


def as_json(seeds: Sequence[Any]) -> Drawn:
    """The same as a file, which may itself be spoilt."""
    plain = [json.dumps(seed).encode() for seed in seeds]
    return st.one_of(of_json(seeds).map(dumps), of_json(seeds).map(dumps), of_bytes(plain))


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def _alter(seed: Any, changes: list[tuple[str, int, int, int]]) -> Any:
    whole = {"": copy.deepcopy(seed)}
    for kind, first, second, nasty in changes:
        places = list(_places(whole))
        holder, key = places[first * len(places) >> 16]
        there, other = places[second * len(places) >> 16]
        if kind == "n":
            holder[key] = copy.deepcopy(NASTY[nasty])
        elif kind == "x":
            holder[key] = copy.deepcopy(there[other])
        elif holder is not whole and kind == "o":
            del holder[key]
        elif kind == "d" and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif holder is not whole and kind == "k" and isinstance(holder, dict):
            holder[str(NASTY[nasty])[:40]] = holder.pop(key)
    return whole[""]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])
