"""How a command starts: quickly, and with the packages it was shipped with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[3]
HEAVY = ("torch", "pandas", "pyarrow", "matplotlib", "scipy", "sklearn")


def python(*arguments: str, path: tuple[Path, ...] = (HERE,)) -> subprocess.CompletedProcess[str]:
    """Run an isolated Python with only these folders added to its path."""
    places = [str(place) for place in path]
    start = f"import sys; sys.path[:0] = {places}; "
    return subprocess.run(
        [sys.executable, "-I", "-c", start + arguments[0], *arguments[1:]],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def loaded_by(code: str, *arguments: str) -> tuple[int, list[str]]:
    """Exit code, and the heavy modules that were imported."""
    tail = f"print('HEAVY', *[m for m in {HEAVY} if m in sys.modules])"
    wrapped = f"import atexit; atexit.register(lambda: {tail}); {code}"
    ended = python(wrapped, *arguments)
    return ended.returncode, ended.stdout.split("HEAVY")[-1].split()


MAIN = "from robustbench_c.cli.{} import main; main()"


@pytest.mark.parametrize(
    ("module", "arguments", "code"),
    [
        ("evaluate", ("--help",), 0),
        ("evaluate", ("--frobnicate",), 2),
        ("evaluate", (), 2),
        ("evaluate", ("--model", "m", "--attack", "none"), 2),
        ("evaluate", ("--model", "m", "--batch-size", "0"), 2),
        ("evaluate", ("--model", "m", "--max-memory", "2X"), 2),
        ("corrupt", ("--help",), 0),
        ("corrupt", ("--model", "m", "--kinds", "fogg"), 2),
        ("runs", ("--help",), 0),
        ("runs", ("verify", "--help"), 0),
        ("runs", (), 2),
        ("report", ("--help",), 0),
        ("report", ("run", "--out", "report.docx"), 2),
        ("leaderboard", ("--help",), 0),
        ("leaderboard", ("validate", "--help"), 0),
        ("leaderboard", ("validate",), 2),
        ("leaderboard", ("export", "--help"), 0),
        ("leaderboard", ("check", "--help"), 0),
        ("leaderboard", ("check", "--baseline", "a"), 2),
        ("leaderboard", ("check", "--baseline", "a", "--run", "b", "--alpha", "5"), 2),
        ("leaderboard", ("speed", "--help"), 0),
        ("leaderboard", ("export", ".", "--format", "jsno"), 2),
        ("leaderboard", (), 2),
    ],
)
def test_help_and_wrong_usage_import_nothing_heavy(module, arguments, code):
    assert loaded_by(MAIN.format(module), *arguments) == (code, [])


@pytest.mark.parametrize(
    "code", ["import robustbench_c", "import robustbench_c.zoo; robustbench_c.zoo.names()"]
)
def test_package_is_light_to_import(code):
    assert loaded_by(code) == (0, [])


def test_runs_are_listed_without_torch(tmp_path):
    """Whoever keeps records need not have a laptop with torch on it."""
    block = "sys.modules['torch'] = None; "
    ended = python(block + MAIN.format("runs"), "ls", str(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, "")
    everything = (
        "import pkgutil, importlib, leaderboards\n"
        "for found in pkgutil.iter_modules(leaderboards.__path__):\n"
        "    importlib.import_module('leaderboards.' + found.name)"
    )
    ended = python(block + "exec(sys.argv[1])", everything)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("name", ["attacks", "certify", "leaderboards"])
def test_package_of_others_under_our_name_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('the intruder ran')")
    ended = python(MAIN.format("evaluate"), "--list", path=(tmp_path, HERE))
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"robust-eval: error: the package '{name}' beside ")
    assert f"hidden by {tmp_path / name / '__init__.py'}" in line


def test_module_of_others_under_our_name_is_refused(tmp_path):
    (tmp_path / "attacks.py").write_text("")
    ended = python(MAIN.format("runs"), "ls", path=(tmp_path, HERE))
    assert ended.returncode == 2
    assert "hidden by" in ended.stderr


def test_folder_of_that_name_hides_nothing(tmp_path):
    """A folder without `__init__.py`, say of results, is no package before ours."""
    (tmp_path / "attacks").mkdir()
    ended = python(MAIN.format("runs"), "ls", str(tmp_path), path=(tmp_path, HERE))
    assert ended.returncode == 0, ended.stderr


def test_missing_package_is_said(tmp_path):
    (tmp_path / "robustbench_c").symlink_to(HERE / "robustbench_c")
    ended = python(MAIN.format("runs"), "ls", path=(tmp_path,))
    assert ended.returncode == 2
    # hidden, where the project is also installed into the environment of the tests
    assert "is missing" in ended.stderr or "is hidden by" in ended.stderr
