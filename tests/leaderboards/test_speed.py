"""The speed gate over files of pytest-benchmark."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from leaderboards.errors import NotComparableError, RecordError
from leaderboards.speed import REFERENCE, compare_speed, read_timings
from leaderboards.speed_report import (
    row,
    rule,
    speed_json,
    speed_junit,
    speed_markdown,
    verdict_line,
)


def a_benchmark(name, seconds, spread=0.01, rounds=20, **stats):
    found = {"median": seconds, "q1": seconds * (1 - spread / 2), "q3": seconds * (1 + spread / 2)}
    found |= {"rounds": rounds, "min": seconds * 0.9, "data": [seconds] * 3} | stats
    return {"name": name, "fullname": f"tests/b.py::{name}", "group": None, "stats": found}


def timings(folder, name, *benchmarks, unit=0.005, **reference):
    path = folder / f"{name}.json"
    everything = [a_benchmark(REFERENCE, unit, **reference), *benchmarks]
    path.write_text(json.dumps({"version": "5", "benchmarks": everything}))
    return path


def compared(folder, before, after, unit=0.005, limit=1.25):
    files = timings(folder, "b", *before), timings(folder, "h", *after, unit=unit)
    return compare_speed(*map(read_timings, files), limit)


def test_a_slower_benchmark_fails_alone(tmp_path):
    old = [a_benchmark(name, 0.1) for name in ("a", "b", "c")]
    new = [a_benchmark("a", 0.1), a_benchmark("b", 0.15), a_benchmark("d", 1.0)]
    found = compared(tmp_path, old, new)
    assert [(r.name[-1], round(r.ratio, 3), r.verdict) for r in found.ratios] == [
        ("b", 1.5, "slower"),
        ("a", 1.0, "ok"),
    ]
    assert (found.new, found.missing) == (("tests/b.py::d",), ("tests/b.py::c",))
    assert verdict_line(found) == "slower: tests/b.py::b (1.50 times)"
    assert compared(tmp_path, old, new, limit=1.6).slower == ()


def test_a_slower_machine_is_no_slower_benchmark(tmp_path):
    old, new = [a_benchmark("a", 0.1)], [a_benchmark("a", 0.3)]
    assert compared(tmp_path, old, new, unit=0.015).ratios[0].ratio == pytest.approx(1)
    assert compared(tmp_path, old, new, unit=0.005).slower
    assert compared(tmp_path, old, [a_benchmark("a", 0.1)], unit=0.0025).slower


@pytest.mark.parametrize(("spread", "slower"), [(0.01, True), (0.15, True), (0.3, False)])
def test_noise_is_taken_off(tmp_path, spread, slower):
    old, new = [a_benchmark("a", 0.1, spread)], [a_benchmark("a", 0.16, spread)]
    (ratio,) = compared(tmp_path, old, new).ratios
    assert ratio.noise == pytest.approx(np.sqrt(2 * spread**2 + 2 * 0.01**2))
    assert ratio.slower == slower == (np.log(1.6) - ratio.noise > np.log(1.25))
    assert ratio.limit == pytest.approx(1.25 * np.exp(ratio.noise))


def test_noise_of_the_reference_counts_as_well(tmp_path):
    files = (
        timings(tmp_path, "b", a_benchmark("a", 0.1), spread=0.3),
        timings(tmp_path, "h", a_benchmark("a", 0.15)),
    )
    assert not compare_speed(*map(read_timings, files), 1.25).slower


def test_a_reference_beside_the_benchmark_is_its_unit(tmp_path):
    """The machine got busy between the reference of the file and the benchmark."""
    old, new = a_benchmark("a", 0.1), a_benchmark("a", 0.3)
    assert compared(tmp_path, [old], [new]).slower
    new["extra_info"] = {"other": 1, "reference_workload": [0.0149, 0.015, 0.015, 0.0151]}
    (ratio,) = compared(tmp_path, [old], [new]).ratios
    assert (round(ratio.ratio, 6), ratio.slower) == (1, False)
    new["extra_info"]["reference_workload"] = [0.015, 0.015]
    assert compared(tmp_path, [old], [new]).slower  # too few
    new["extra_info"]["reference_workload"] = [-1.0] * 9
    with pytest.raises(NotComparableError, match="extra_info"):
        compared(tmp_path, [old], [new])


def test_random_rounds_of_equal_speed_do_not_fail(tmp_path):
    """Rounds that a busy machine delays now and then: 200 pairs, a true ratio of 1."""
    random, failed = np.random.default_rng(0), 0

    def a_file(name):
        def benchmark(title, seconds):
            rounds = seconds * (1 + random.gamma(1.0, 0.08, 20))
            q1, median, q3 = np.quantile(rounds, [0.25, 0.5, 0.75])
            return a_benchmark(title, float(median), q1=float(q1), q3=float(q3))

        return timings(tmp_path, name, benchmark("a", 0.1), unit=0.005)

    for _ in range(200):
        failed += bool(compare_speed(*map(read_timings, map(a_file, "bh")), 1.25).slower)
    assert failed == 0


def test_single_rounds_are_not_judged(tmp_path):
    old = [a_benchmark("a", 0.1, rounds=1), a_benchmark("b", 0.1)]
    new = [a_benchmark("a", 0.9), a_benchmark("b", 0.1)]
    found = compared(tmp_path, old, new)
    assert found.ratios[0].verdict == "not judged: too few rounds"
    assert found.slower == ()
    with pytest.raises(NotComparableError, match="no benchmark has at least 3 rounds in both"):
        compared(tmp_path, old[:1], new[:1])
    with pytest.raises(NotComparableError, match="no benchmark has"):
        compared(tmp_path, [], new)


def test_too_noisy_a_benchmark_is_never_ok(tmp_path):
    """Noise raises the limit: at 280% of it, one that takes 10 times as long does not exceed it."""
    old = [a_benchmark("a", 0.1), a_benchmark("b", 0.1)]
    jittery = a_benchmark("a", 1.0, q1=0.2, q3=3.0)
    found = compared(tmp_path, old, [jittery, a_benchmark("b", 0.1)])
    assert [ratio.verdict for ratio in found.ratios] == ["not judged: too noisy", "ok"]
    assert verdict_line(found) == "no benchmark is slower; 1 not judged"
    assert "no benchmark is slower; 1 not judged" in speed_markdown(found)
    assert row(found.ratios[0])[4:] == ("280.0%", "20.6", "not judged: too noisy")
    assert "not judged if it does not and its noise is above 50%" in rule(found)
    assert ET.fromstring(speed_junit(found))[0].attrib["skipped"] == "1"
    assert [each["judged"] for each in json.loads(speed_json(found))["benchmarks"]] == [False, True]
    with pytest.raises(NotComparableError, match=r"too noisy to be judged \(noise of 280% and"):
        compared(tmp_path, old, [jittery])


@pytest.mark.parametrize(
    ("spread", "seconds", "verdict"),
    [(0.49, 0.1, "ok"), (0.52, 0.1, "not judged: too noisy"), (0.6, 0.3, "slower")],
)
def test_noise_up_to_half_is_judged_and_what_is_slower_for_all_of_it(
    tmp_path, spread, seconds, verdict
):
    quiet = a_benchmark("b", 0.1)
    new = [a_benchmark("a", seconds, spread), quiet]
    found = compared(tmp_path, [a_benchmark("a", 0.1), quiet], new)
    assert {ratio.name[-1]: ratio.verdict for ratio in found.ratios}["a"] == verdict


def test_without_the_reference_there_is_no_unit(tmp_path):
    path = tmp_path / "b.json"
    path.write_text(json.dumps({"benchmarks": [a_benchmark("a", 0.1)]}))
    with pytest.raises(NotComparableError, match=r"test_bench_reference\.py beside"):
        read_timings(path)
    with pytest.raises(NotComparableError, match="at least 3 rounds"):
        read_timings(timings(tmp_path, "c", rounds=2))


@pytest.mark.parametrize(
    "stats",
    [
        {"median": float("nan")},
        {"median": "0.1"},
        {"median": 0},
        {"median": -1.0},
        {"q1": 0.2},
        {"q3": 1e300},
        {"rounds": 0},
        {"rounds": 1.5},
    ],
)
def test_impossible_times_are_refused(tmp_path, stats):
    path = timings(tmp_path, "b", a_benchmark("a", 0.1, **stats))
    with pytest.raises(NotComparableError, match=r"no file of pytest --benchmark-json: benchm"):
        read_timings(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"{}", b"[" * 10_000])
def test_what_is_no_such_file(tmp_path, content):
    path = tmp_path / "b.json"
    path.write_bytes(content)
    with pytest.raises(NotComparableError, match="is no file of"):
        read_timings(path)
    with pytest.raises(RecordError, match="missing"):
        read_timings(tmp_path / "nowhere.json")


def test_one_name_twice_is_refused(tmp_path):
    with pytest.raises(NotComparableError, match="there twice"):
        read_timings(timings(tmp_path, "b", a_benchmark("a", 0.1), a_benchmark("a", 0.2)))


def test_reports_are_whole_and_inert(tmp_path):
    name = "t[</code><script>|@all\x1b\ufffe]"
    old = [a_benchmark(name, 0.1), a_benchmark("b", 0.1, rounds=1)]
    found = compared(tmp_path, old, [a_benchmark(name, 0.9), a_benchmark("b", 0.1)])
    text = speed_markdown(found)
    for sign in ("<script", "@all", "\x1b"):
        assert sign not in text
    suite = ET.fromstring(speed_junit(found))[0]
    ends = {end: suite.attrib[end] for end in ("tests", "failures", "skipped", "errors")}
    assert ends == {"tests": "2", "failures": "1", "skipped": "1", "errors": "0"}
    content = json.loads(speed_json(found))
    assert [each["verdict"] for each in content["benchmarks"]] == [
        "slower",
        "not judged: too few rounds",
    ]
