"""The speed gate: is a benchmark slower than it was, on whatever machine, beyond noise?

Two files of pytest-benchmark. The unit of time of each is its own reference workload: a fixed
computation that was timed in the same run, so that a faster machine is faster for both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from leaderboards.errors import NotComparableError
from leaderboards.files import read_bytes
from leaderboards.manifest import explain

REFERENCE = "test_reference_workload"
"""Name of the benchmark that is the unit of time."""
LEAST_ROUNDS = 3
"""Rounds below which nothing is known of a benchmark's noise."""
MOST_NOISE = 0.5
"""Noise of a ratio above which a benchmark is not said to be as fast as before."""
MAX_BYTES = 64 << 20
_Text = Annotated[str, Field(max_length=2000)]
_Seconds = Annotated[float, Field(ge=1e-12, le=1e9)]


class _Read(BaseModel):
    """What is read of a file of others, whose further fields are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class Stats(_Read):
    """Times of the rounds of a benchmark, in seconds."""

    median: _Seconds
    """Half of the rounds took at most this."""
    q1: _Seconds
    """A quarter."""
    q3: _Seconds
    """Three quarters."""
    rounds: Annotated[int, Field(ge=1, le=2**53)]
    """How many there were."""

    @model_validator(mode="after")
    def _ordered(self) -> Stats:
        if not self.q1 <= self.median <= self.q3:
            raise ValueError("the quartiles are not in order")
        return self

    @property
    def noise(self) -> float:
        """Range between the quartiles, as a share of the median."""
        return (self.q3 - self.q1) / self.median


class ExtraInfo(_Read):
    """What a benchmark says of itself."""

    reference_workload: Annotated[tuple[_Seconds, ...], Field(max_length=100_000)] = ()
    """Times of the reference, measured in turns with the benchmark's rounds."""


class Benchmark(_Read):
    """One benchmark."""

    name: _Text
    """Its test's name."""
    fullname: _Text
    """The same with its file."""
    stats: Stats
    """Its times."""
    extra_info: ExtraInfo = ExtraInfo()
    """Its own unit of time, if it has one."""

    def unit(self) -> Stats | None:
        """Return the times of the reference beside this benchmark, if there are enough."""
        times = self.extra_info.reference_workload
        if len(times) < LEAST_ROUNDS:
            return None
        q1, median, q3 = (float(q) for q in np.quantile(times, [0.25, 0.5, 0.75]))
        return Stats(median=median, q1=q1, q3=q3, rounds=len(times))


class Timings(_Read):
    """One file of `pytest --benchmark-json`."""

    benchmarks: Annotated[tuple[Benchmark, ...], Field(max_length=100_000)]
    """All benchmarks of a run."""

    @model_validator(mode="after")
    def _distinct(self) -> Timings:
        if len({each.fullname for each in self.benchmarks}) < len(self.benchmarks):
            raise ValueError("a benchmark is there twice")
        return self

    def by_name(self) -> dict[str, tuple[Stats, Stats]]:
        """Return the times of all but the reference, each with its unit."""
        unit = self.unit()
        return {
            b.fullname: (b.stats, b.unit() or unit) for b in self.benchmarks if b.name != REFERENCE
        }

    def unit(self) -> Stats:
        """Return the times of the reference.

        Raises:
            NotComparableError: It is not there, or there are several, or its rounds are too few.
        """
        found = [each.stats for each in self.benchmarks if each.name == REFERENCE]
        if len(found) != 1 or found[0].rounds < LEAST_ROUNDS:
            raise NotComparableError(
                f"no {REFERENCE} of at least {LEAST_ROUNDS} rounds, the unit of time: put "
                "tests/benchmarks/test_bench_reference.py beside the benchmarks in the pytest run"
            )
        return found[0]


@dataclass(frozen=True)
class Ratio:
    """A benchmark that both files have.

    Attributes:
        name: Its full name.
        before: Median, in units of the reference.
        after: The same now.
        noise: Of their ratio; see `compare_speed`.
        limit: A ratio above this fails: `max_slowdown` and the noise on top.
        rounds: The fewer of those of the two.
    """

    name: str
    before: float
    after: float
    noise: float
    limit: float
    rounds: int

    @property
    def ratio(self) -> float:
        """How many times as long it takes."""
        return self.after / self.before

    @property
    def slower(self) -> bool:
        """Whether it fails."""
        return self.enough_rounds and self.ratio > self.limit

    @property
    def enough_rounds(self) -> bool:
        """Whether its noise is known."""
        return self.rounds >= LEAST_ROUNDS

    @property
    def judged(self) -> bool:
        """Whether it can be said: it is slower by more than its noise, or that is small."""
        return self.slower or (self.enough_rounds and self.noise <= MOST_NOISE)

    @property
    def verdict(self) -> str:
        """In a few words."""
        if not self.judged:
            return f"not judged: too {'noisy' if self.enough_rounds else 'few rounds'}"
        return "slower" if self.slower else "ok"


@dataclass(frozen=True)
class Speed:
    """What the speed gate found.

    Attributes:
        ratios: Benchmarks that both have, the slowest first.
        new: Those that only the head has.
        missing: Those that only the baseline has.
        max_slowdown: As given.
    """

    ratios: tuple[Ratio, ...]
    new: tuple[str, ...]
    missing: tuple[str, ...]
    max_slowdown: float

    @property
    def slower(self) -> tuple[Ratio, ...]:
        """Those that fail."""
        return tuple(each for each in self.ratios if each.slower)


def read_timings(path: Path) -> Timings:
    """Read a file of pytest-benchmark that anybody may have written.

    Raises:
        NotComparableError: It is none, or has no reference workload.
        RecordError: It cannot be read.
    """
    data = read_bytes(path.parent, path, MAX_BYTES)
    try:
        found = Timings.model_validate_json(data)
        found.unit()
    except ValidationError as error:
        raise NotComparableError(
            f"{path} is no file of pytest --benchmark-json: {explain(error)}"
        ) from None
    except NotComparableError as error:
        raise NotComparableError(f"{path} has {error}") from None
    return found


def compare_speed(baseline: Timings, head: Timings, max_slowdown: float) -> Speed:
    """Compare the medians of two runs, each in units of its reference workload.

    The unit of a benchmark is the reference that was timed in turns with its rounds, where there is
    one, and else that of the file: the load of a machine changes during a run.

    Medians and not the shortest times, since rounds are chosen by time: a benchmark that got slower
    has fewer of them, and the shortest of fewer is longer. The noise of a ratio is the root of the
    sum of squares of the four interquartile ranges that are in it (benchmark and reference, before
    and now), each as a share of its median. A benchmark fails if log(ratio) - noise >
    log(max_slowdown): if it were too slow even were the ratio less by all its noise. The spread of
    single rounds is taken and not that of their median, which is smaller, since a busy moment
    lasts for many rounds. Noise raises the limit, so one that does not fail is "ok" only where its
    noise is at most `MOST_NOISE`, and else not judged.

    Raises:
        NotComparableError: They have no benchmark in common that can be judged, or no unit.
    """
    old, new = baseline.by_name(), head.by_name()
    ratios = []
    for name in old.keys() & new.keys():
        sides = old[name], new[name]
        noise = math.hypot(*(stats.noise for side in sides for stats in side))
        before, after = (stats.median / unit.median for stats, unit in sides)
        rounds = min(stats.rounds for stats, _ in sides)
        limit = max_slowdown * math.exp(min(noise, 99.0))
        ratios.append(Ratio(name, before, after, noise, limit, rounds))
    if not any(ratio.judged for ratio in ratios):
        if noisy := [ratio.noise for ratio in ratios if ratio.enough_rounds]:
            raise NotComparableError(
                f"every benchmark is too noisy to be judged (noise of {min(noisy):.0%} and more, "
                f"where {MOST_NOISE:.0%} is the most): measure again on a quieter machine"
            )
        raise NotComparableError(
            f"no benchmark has at least {LEAST_ROUNDS} rounds in both files, so nothing is known "
            "of the noise"
        )
    return Speed(
        ratios=tuple(sorted(ratios, key=lambda each: (-each.ratio, each.name))),
        new=tuple(sorted(new.keys() - old.keys())),
        missing=tuple(sorted(old.keys() - new.keys())),
        max_slowdown=max_slowdown,
    )
