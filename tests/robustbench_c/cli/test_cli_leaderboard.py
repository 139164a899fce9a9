"""`robust-leaderboard`: boards printed and written, runs refused, wrong usage."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "leaderboards"))  # for run_makers
from run_makers import write_run
from test_cli_start import HERE, python

from robustbench_c.cli.app import run_app
from robustbench_c.cli.leaderboard import app

MAIN = (
    "sys.modules['torch'] = None; from robustbench_c.cli.leaderboard import main; "
    "sys.argv[0] = 'robust-leaderboard'; main()"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "a", {0}, {1}, {2, 3}, name="first", run_id="a", sha256="1" * 64)
    write_run(folder / "b", set(), {1}, {2}, name="[red]second", run_id="b", sha256="2" * 64)
    write_run(folder / "c", samples=3, name="third", run_id="c")
    (folder / "c" / "summary.json").write_text("{}")
    return folder


@pytest.fixture
def ended(capsys):
    def run(*arguments, code=0):
        with pytest.raises(SystemExit) as stopped:
            run_app(app, "robust-leaderboard", arguments=[str(each) for each in arguments])
        out, err = capsys.readouterr()
        assert stopped.value.code == code, err
        return out, err

    return run


def test_boards_are_printed_and_refused_runs_named_without_torch(runs):
    done = python(MAIN, "show", str(runs), path=(HERE,))
    out, err = done.stdout, done.stderr
    assert done.returncode == 0
    assert "mini, Linf 0.1, 10 samples, pgd + crown (board-" in out
    assert "[red]second" in out
    assert "20.0% [2.5, 55.6] #1-2" in out
    (line,) = err.splitlines()
    assert line.startswith(f"refused: {runs / 'c'}: ")


def test_export_writes_what_it_prints(runs, tmp_path, ended):
    out, _ = ended("export", runs, "--format", "json")
    ended("export", runs / "b", runs / "a", "--format", "json", "--out", tmp_path / "boards.json")
    assert (tmp_path / "boards.json").read_text() == out
    (board,) = json.loads(out)["boards"]
    chosen, _ = ended("export", runs, "--board", board["board"][:9])
    assert len(chosen.splitlines()) == 3


def test_wrong_use_is_one_line(runs, tmp_path, ended):
    for arguments, code, told in (
        (("export", runs, "--format", "jsno"), 2, "did you mean 'json'?"),
        (("show", runs, "--board", "nothing"), 2, "no board 'nothing': board-"),
        (("show", tmp_path), 6, f"no runs in {tmp_path}"),
        (("show", runs / "absent"), 6, "no such folder"),
        (("show", runs, "--strict"), 6, "1 of 3 runs cannot be trusted"),
        (("show", runs / "c"), 6, "1 of 1 runs cannot be trusted"),
        (("shwo", runs), 2, "shwo"),
    ):
        out, err = ended(*arguments, code=code)
        assert out == ""
        assert err.splitlines()[-1].startswith("robust-leaderboard: error: ")
        assert told in err.splitlines()[-1]


def test_a_site_is_built_without_torch_and_replaced(runs, tmp_path):
    site = tmp_path / "site"
    done = python(MAIN, "build", str(runs), "--out", str(site), path=(HERE,))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"2 runs on 1 board: {site / 'index.html'}\n"
    assert done.stderr.startswith(f"refused: {runs / 'c'}: ")
    (site / "old").write_text("")
    done = python(
        MAIN, "build", str(runs / "a"), "--out", str(site), "--title", "Mine", path=(HERE,)
    )
    assert done.stdout == f"1 run on 1 board: {site / 'index.html'}\n"
    assert "<title>Mine</title>" in (site / "index.html").read_text()
    assert not (site / "old").exists()


def test_no_site_is_built_where_something_else_is(runs, tmp_path, ended):
    (tmp_path / "mine").write_text("")
    _, err = ended("build", runs, "--out", tmp_path, code=6)
    assert "no site of robust-leaderboard: choose another --out" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    ended("build", runs, "--out", tmp_path / "site", "--strict", code=6)
    assert not (tmp_path / "site").exists()
