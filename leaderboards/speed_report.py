"""What the speed gate found, for a pull request, for a CI system and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict

from leaderboards.junit import Case, junit
from leaderboards.markdown import inert, table
from leaderboards.speed import MOST_NOISE, Ratio, Speed

SUITE = "speed"
HEADER = ("benchmark", "baseline", "head", "ratio", "noise", "fails above", "verdict")


def row(ratio: Ratio) -> tuple[str, ...]:
    """Return a benchmark as cells under `HEADER`; its name is the text of a stranger."""
    known = (f"{ratio.noise:.1%}", f"{ratio.limit:.3g}") if ratio.enough_rounds else ("?", "?")
    sides = (f"{side:.3g}" for side in (ratio.before, ratio.after))
    return ratio.name, *sides, f"{ratio.ratio:.2f}", *known, ratio.verdict


def rule(speed: Speed) -> str:
    """Return what makes a benchmark fail, in words."""
    return (
        f"fails if more than {speed.max_slowdown:g} times as slow, its noise taken off; not judged "
        f"if it does not and its noise is above {MOST_NOISE:.0%}; times are "
        "medians in units of the reference workload of the same run"
    )


def verdict_line(speed: Speed) -> str:
    """Return how it ended, in one line."""
    if not speed.slower:
        left = sum(not each.judged for each in speed.ratios)
        return "no benchmark is slower" + (f"; {left} not judged" if left else "")
    told = ", ".join(f"{each.name} ({each.ratio:.2f} times)" for each in speed.slower)
    return f"slower: {told}"


def speed_markdown(speed: Speed) -> str:
    """Return the summary for a pull request."""
    cells = [(inert(name), *rest) for name, *rest in map(row, speed.ratios)]
    parts = [
        f"### Speed gate: {'**slower**' if speed.slower else verdict_line(speed)}\n",
        table(HEADER, cells, numbers=range(1, 6)),
    ]
    for told, names in (("New", speed.new), ("Missing", speed.missing)):
        if names:
            parts.append(f"{told}: {', '.join(map(inert, names))}\n")
    return "\n".join([*parts, f"<sub>{rule(speed)}</sub>\n"])


def speed_json(speed: Speed) -> bytes:
    """Return everything that was found."""
    content = {
        "schema_version": 1,
        "regressed": bool(speed.slower),
        "max_slowdown": speed.max_slowdown,
        "benchmarks": [
            {
                **asdict(each),
                "ratio": each.ratio,
                "judged": each.judged,
                "verdict": each.verdict,
            }
            for each in speed.ratios
        ],
        "new": speed.new,
        "missing": speed.missing,
    }
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def speed_junit(speed: Speed) -> bytes:
    """Return a test for each benchmark that both files have."""
    cases = [
        Case(
            each.name,
            failure=f"{each.ratio:.2f} times as slow (noise {each.noise:.1%})"
            if each.slower
            else None,
            skipped=None if each.judged else each.verdict,
        )
        for each in speed.ratios
    ]
    return junit(SUITE, cases, {"rule": rule(speed)})
