"""Fuzzers of everything that reads files of strangers.

The short form gives each parser a few inputs. The long one goes on for so many seconds:
`ROBUST_FUZZ_SECONDS=600 pytest -m slow tests/fuzz -s`, and says how many each parser got.
"""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest
import targets_models
import targets_records
import targets_texts
from guarding import bounded_memory, guarded
from hypothesis import HealthCheck, Phase, given, seed, settings

pytest.importorskip("onnx")

_SHORT = 20
_LONG = 300
_PHASES = (Phase.generate, Phase.shrink)


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    parts = (targets_models, targets_records, targets_texts)
    return {
        name: target
        for part in parts
        for name, target in part.targets(tmp_path_factory.mktemp(part.__name__)).items()
    }


def fuzz(target, examples: int, start: int) -> int:
    """Give a parser inputs; each is read or refused. Returns how many there were."""
    inputs, parse = target
    count = 0

    @seed(start)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=_PHASES,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def each(data: bytes) -> None:
        nonlocal count
        count += 1
        with guarded():
            parse(data)

    with bounded_memory():
        each()
    return count


def test_every_parser_reads_or_refuses(targets):
    for name, target in targets.items():
        try:
            fuzz(target, _SHORT, 0)
        except AssertionError as error:
            error.add_note(f"the parser: {name}")
            raise


@pytest.mark.slow
def test_every_parser_reads_or_refuses_for_long(targets, capsys):
    end = time.monotonic() + float(os.environ.get("ROBUST_FUZZ_SECONDS", "20"))
    given_: Counter[str] = Counter()
    faults: dict[str, str] = {}
    start = time.time_ns() & 0xFFFFFFFF
    while time.monotonic() < end:
        start += 1
        for name, target in targets.items():
            if name in faults or time.monotonic() > end:
                continue
            try:
                given_[name] += fuzz(target, _LONG, start)
            except AssertionError as error:
                notes = "\n".join(getattr(error, "__notes__", ()))
                faults[name] = f"seed {start}: {error}\n{notes}"
    with capsys.disabled():
        told = ", ".join(f"{count:,} {name}" for name, count in given_.items())
        print(f"\n{sum(given_.values()):,} inputs: {told}")
    assert not faults, "\n".join(f"{name}: {fault}" for name, fault in faults.items())
    assert set(given_) == set(targets)
