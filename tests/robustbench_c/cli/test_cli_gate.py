"""`robust-leaderboard check`, `baseline` and `speed`, as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

HERE = Path(__file__).parents[3]
sys.path.append(str(HERE / "tests" / "leaderboards"))

from run_makers import write_run  # type: ignore[import-not-found]  # noqa: E402


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Of 60 samples: all certified; 30 of them lost; one lost."""
    root = tmp_path_factory.mktemp("gate")
    for name, lost in {"old": 0, "worse": 30, "near": 1}.items():
        write_run(root / name, set(), set(), set(range(lost, 60)), 60)
    return root


@pytest.fixture
def gate(command, monkeypatch, folders):
    monkeypatch.chdir(folders)
    return lambda *arguments: command("robust-leaderboard", *arguments)


def test_fine_and_regressed(gate, folders, tmp_path):
    ended = gate("check", "--baseline", "old", "--run", "near")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith("no regression\n")
    files = {kind: tmp_path / "new" / f"gate.{kind}" for kind in ("markdown", "junit", "json")}
    options = [word for kind, path in files.items() for word in (f"--{kind}", path)]
    ended = gate("check", "--baseline", "old", "--run", "worse", *options)
    assert (ended.code, ended.err) == (1, "")
    assert "regressed: certified: 50.00 points lower (30 samples lost, 0 gained" in ended.out
    assert "and 10 more of 30 (--json FILE has them all)" in ended.out
    assert "at least 6 (10 points)" in ended.out
    assert "**regressed**" in files["markdown"].read_text()
    assert ET.parse(files["junit"]).getroot()[0].attrib["failures"] == "1"
    assert len(json.loads(files["json"].read_text())["flips"]) == 30


def test_a_file_is_as_good_as_its_run(gate, tmp_path):
    path = tmp_path / "robustness" / "baseline.json"
    ended = gate("baseline", "old", "--out", path)
    assert ended.code == 0
    assert "60 samples of cnn (aaaaaaaaaaaa)" in ended.out
    by_file, by_run = (
        gate("check", "--baseline", baseline, "--run", "worse") for baseline in (path, "old")
    )
    assert by_file == by_run
    assert by_file.code == 1


def test_not_comparable_is_two_and_reported(gate, folders, tmp_path):
    files = [tmp_path / name for name in ("g.md", "g.xml", "g.json")]
    options = ["--markdown", files[0], "--junit", files[1], "--json", files[2]]
    (tmp_path / "empty").mkdir()
    ended = gate("check", "--baseline", "old", "--run", tmp_path / "empty", *options)
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.lines
    assert line.startswith("robust-leaderboard: error: not comparable: ")
    assert line.endswith("is not a run: it has no manifest.json")
    assert "**not comparable**" in files[0].read_text()
    assert ET.parse(files[1]).getroot()[0].attrib["errors"] == "1"
    assert json.loads(files[2].read_text())["regressed"] is None


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("'acc' is none of clean, robust, certified", ("--metrics", "acc")),
        ("--alpha has to be between 0 and 1", ("--alpha", 5)),
        ("--alpha has to be", ("--alpha", "nan")),
        ("--tolerance has to be 0 to 100", ("--tolerance", -1)),
        ("--tolerance has to be", ("--tolerance", "nan")),
        ("--max-lost has to be", ("--max-lost", -1)),
    ],
)
def test_wrong_usage(gate, words, arguments):
    ended = gate("check", "--baseline", "old", "--run", "near", *arguments)
    assert ended.code == 2
    assert words in ended.lines[0]


def test_limits_reach_the_gate(gate):
    both = ("check", "--baseline", "old", "--run", "worse")
    assert gate(*both, "--tolerance", 50).code == 0
    assert gate(*both, "--metrics", "robust,clean").code == 0
    assert gate(*both, "--alpha", 1e-12).code == 0
    assert gate("check", "--baseline", "old", "--run", "near", "--max-lost", 0).code == 1


def test_new_red_flags(gate, tmp_path):
    """As a pull request that masks gradients shows them; `unknown` was made by --no-diagnose."""
    gate("baseline", "old", "--out", tmp_path / "unknown.json")
    content = json.loads((tmp_path / "unknown.json").read_text())
    for name, flags in {"none": [], "masked": ["zero-gradient"]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content | {"flags": flags}))

    def checked(before, now, *options):
        sides = ("--baseline", tmp_path / f"{before}.json", "--run", tmp_path / f"{now}.json")
        return gate("check", *sides, *options)

    ended = checked("none", "masked")
    assert (ended.code, ended.err) == (1, "")
    told = "regressed: robust accuracy cannot be trusted: new red flag zero-gradient\n"
    assert ended.out.endswith(told)
    assert "not trusted" in ended.out
    assert checked("none", "masked", "--allow-unreliable").code == 0
    assert checked("masked", "masked").code == 0
    ended = checked("unknown", "masked")
    (line,) = ended.lines
    assert (ended.code, "make the baseline with diagnostics" in line) == (2, True)
    assert checked("none", "unknown").code == 2
    ended = checked("unknown", "unknown")
    assert (ended.code, "neither was diagnosed" in ended.out) == (0, True)


def test_speed(gate, tmp_path):
    def a_file(name, seconds):
        stats = {"rounds": 9}
        rows = [
            {
                "name": test,
                "fullname": test,
                "stats": stats | dict.fromkeys(("median", "q1", "q3"), taken),
            }
            for test, taken in (("test_reference_workload", 0.01), ("test_a[<b>]", seconds))
        ]
        path = tmp_path / name
        path.write_text(json.dumps({"benchmarks": rows}))
        return path

    fast, slow = a_file("fast.json", 0.1), a_file("slow.json", 0.2)
    ended = gate("speed", "--baseline", fast, "--head", slow, "--markdown", tmp_path / "s.md")
    assert (ended.code, ended.err) == (1, "")
    assert "slower: test_a[<b>] (2.00 times)" in ended.out
    assert "<b>" not in (tmp_path / "s.md").read_text()
    assert gate("speed", "--baseline", slow, "--head", fast).code == 0
    options = ("--max-slowdown", 2.5)
    assert gate("speed", "--baseline", fast, "--head", slow, *options).code == 0
    ended = gate("speed", "--baseline", fast, "--head", slow, "--max-slowdown", 0.5)
    assert (ended.code, ended.lines) == (
        2,
        ["robust-leaderboard: error: --max-slowdown has to be at least 1: 0.5"],
    )
    (tmp_path / "none.json").write_text('{"benchmarks": []}')
    ended = gate("speed", "--baseline", fast, "--head", tmp_path / "none.json")
    assert ended.code == 2
    assert "has no test_reference_workload" in ended.lines[0]


def test_real_timings(gate, tmp_path):
    """What pytest-benchmark writes is read; its clock ticks once at each look, load or not."""
    names, path = ("test_reference_workload", "test_own"), tmp_path / "real.json"
    call = "    benchmark.pedantic(sum, args=(range(20_000),), rounds=9)\n"
    tests = "".join(f"def {name}(benchmark):\n{call}" for name in names)
    clock = (
        "import pytest, itertools\nticks = itertools.count(1.0)\ndef look(): return next(ticks)\n"
        "pytestmark = pytest.mark.benchmark(timer=look)\n"
    )
    (tmp_path / "test_own.py").write_text(clock + tests)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", "/dev/null", f"--benchmark-json={path}", "."],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST")},  # not a worker
    )
    assert ended.returncode == 0, ended.stdout
    ended = gate("speed", "--baseline", path, "--head", path)
    assert ended.code == 0
    assert "test_own" in ended.out


def test_no_torch_is_needed(folders):
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); sys.modules['torch'] = None; "
        "from robustbench_c.cli.leaderboard import main; main()"
    )
    arguments = ["check", "--baseline", str(folders / "old"), "--run", str(folders / "worse")]
    ended = subprocess.run(
        [sys.executable, "-I", "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (1, "")
