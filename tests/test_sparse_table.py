"""The table of sparse methods: rows are recipes that can be trained, and lines are read off."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from robustbench_c.cli import train
from robustbench_c.errors import RunError

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.append(str(SCRIPTS))  # as Python does for a script
SCRIPT = runpy.run_path(str(SCRIPTS / "sparse_table.py"))
ROWS = SCRIPT["ROWS"]


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_recipes_with_options_that_hold(name, monkeypatch):
    """By the command line itself, up to the training."""
    taken = {}

    def run(recipe, folder, **more):
        taken.update(recipe=recipe, folder=folder, **more)
        raise SystemExit(0)

    monkeypatch.setattr("robustbench_c.training.run.run", run)
    row = ROWS[name]
    CliRunner().invoke(train.app, row.command(), catch_exceptions=False)
    recipe = taken["recipe"]
    assert recipe.name == name
    assert taken["resume"]
    assert (recipe.sparse.settings["sparsity"] if recipe.sparse else 0.0) == row.sparsity
    assert recipe.train.seed == row.seed
    assert recipe.sha256 == SCRIPT["asked"](row).sha256  # what its card has to say
    assert row.start is None or list(ROWS).index(row.start) < list(ROWS).index(name)


def test_rows_of_one_line_differ_in_the_seed_alone():
    lines = [(r.network, r.method, r.sparsity, r.seed) for r in ROWS.values()]
    assert len(set(lines)) == len(lines)


def test_a_model_of_another_command_is_no_row(tmp_path, monkeypatch):
    card = SimpleNamespace(cost=True, recipe_sha256="0" * 64)
    loaded = SimpleNamespace(card=card)
    zoo = SimpleNamespace(load=lambda path: loaded)
    monkeypatch.setitem(SCRIPT["evaluate"].__globals__, "zoo", zoo)
    with pytest.raises(RunError, match="trained by another recipe"):
        SCRIPT["evaluate"](ROWS["dense"], tmp_path / "log")


@pytest.mark.parametrize(
    ("words", "told"),
    [(["sparsevlr-98"], "did you mean 'sparsevlr-9"), (["--jobs", "0"], "--jobs 0")],
)
def test_wrong_words_are_one_line(words, told, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sparse_table.py", *words])
    with pytest.raises(SystemExit) as ended:
        SCRIPT["main"]()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def row(method: str, **more: object) -> dict[str, object]:
    figures = {
        "network": "Small CNN", "asked": 0.9, "sparsity": 0.9, "seed": 0, "clean": 0.8,
        "robust": 0.75, "certified": 0.7, "unstable": 0.1, "samples_seen": 1_000_000,
        "seconds": 100.0,
    }  # fmt: skip
    return {"row": method, "method": method, **figures, **more}


def test_lines_of_several_seeds_show_mean_and_deviation(tmp_path, monkeypatch):
    monkeypatch.setitem(SCRIPT["table"].__globals__, "TABLE", tmp_path / "none.md")
    text = SCRIPT["table"]([row("a", certified=0.69), row("a", seed=1, certified=0.71), row("b")])
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert "| a | 90.00% | 2 | 20.00% ± 0.00 | 25.00% ± 0.00 | 30.00% ± 1.41 |" in text
    assert len(lines) == 3
