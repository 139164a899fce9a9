"""Every bad input of the corpus: one line, the right exit code, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from bad_cases import Case
from bad_data import DATA_CASES
from bad_explanations import EXPLANATION_CASES
from bad_makers import tree
from bad_models import MODEL_CASES
from bad_others import OTHER_CASES
from bad_properties import PROPERTY_CASES
from bad_records import RECORD_CASES
from bad_settings import SETTING_CASES
from bad_suites import SUITE_CASES
from bad_training import TRAINING_CASES

CORPUS: list[Case] = [
    *SETTING_CASES,
    *MODEL_CASES,
    *DATA_CASES,
    *EXPLANATION_CASES,
    *PROPERTY_CASES,
    *RECORD_CASES,
    *TRAINING_CASES,
    *OTHER_CASES,
    *SUITE_CASES,
]
_BESIDE = ("notice: ", "refused: ")
_LONGEST = 640
_SHORT = 25
"""One case of so many is looked at in the short form of the tests, by turns over all tables."""


def check(case: Case, code: int, out: str, err: str) -> None:
    assert "Traceback" not in err
    *others, last = err.splitlines() or [""]
    assert last.startswith(f"{case.command}: error: "), err
    assert all(line.startswith(_BESIDE) for line in others), err
    assert err.endswith("\n")
    assert (last + "".join(others)).isprintable(), err
    assert len(last) <= _LONGEST
    assert case.words in last
    assert code == case.code, err
    assert case.tells or not out


@pytest.fixture(autouse=True)
def _unlimited(monkeypatch):
    """Keep the limit of memory of `validate` off the process of the tests."""
    monkeypatch.setattr("robustbench_c.cli.validate._limit_memory", lambda: None)


def marked() -> list[object]:
    def is_short(i: int, case: Case) -> bool:
        return i % _SHORT == 0 and "bomb" not in case.name

    return [
        pytest.param(case, id=case.id, marks=[] if is_short(i, case) else [pytest.mark.slow])
        for i, case in enumerate(CORPUS)
    ]


@pytest.mark.parametrize("case", marked())
def test_bad_input(command, bad_file, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    arguments = [bad_file(text) for text in case.arguments]
    before = tree(bad_file.folder)
    ended = command(case.command, *arguments)
    check(case, ended.code, ended.out, ended.err)
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert tree(bad_file.folder) == before


def test_the_corpus_is_large_and_of_every_command():
    assert len(CORPUS) >= 200
    counts = Counter(case.command for case in CORPUS)
    assert min(counts.values()) >= 8
    assert len(counts) == 8
    assert len({case.id for case in CORPUS}) == len(CORPUS)


@pytest.mark.slow
@pytest.mark.parametrize("case", CORPUS[::70], ids=lambda case: case.id)
def test_bad_input_in_a_process_of_its_own(bad_file, tmp_path, case):
    module = {"robust-eval": "evaluate"}.get(case.command, case.command.removeprefix("robust-"))
    code = f"import sys; from robustbench_c.cli.{module} import main; sys.argv[0] = ''; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(bad_file, case.arguments)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    check(case, done.returncode, done.stdout, done.stderr)
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]
