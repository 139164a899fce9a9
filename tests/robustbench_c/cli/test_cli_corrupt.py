"""`robust-corrupt` as a stranger meets it."""

from __future__ import annotations

import json
import re

import pytest

from attacks.corruption_kinds import KINDS
from attacks.transformations import FAMILIES
from robustbench_c.cli import corrupt

MODEL = ("--model", "fmnist-cnn-pgd", "--samples", 12)
FEW = (*MODEL, "--kinds", "fog,jpeg", "--severities", "5,1")


@pytest.fixture
def robust_corrupt(command, tmp_path):
    return lambda *arguments: command(
        "robust-corrupt", "--device", "cpu", "--out", tmp_path / "runs", *arguments
    )


def test_the_names_are_those_of_the_attacks():
    assert corrupt.KINDS == KINDS
    assert corrupt.FAMILIES == FAMILIES


def test_table_pictures_and_record(robust_corrupt, robust_runs, tmp_path):
    ended = robust_corrupt(*FEW)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("fmnist-cnn-pgd on fashion-mnist-mini, corrupted\n")
    cell = r"\d+\.\d% \[\d+\.\d, \d+\.\d\]"
    for kind in ("fog", "jpeg"):
        assert re.search(rf"{kind} +│ {cell} +│ {cell} +│ \d+\.\d%", ended.out)
    assert re.search(rf"clean: {cell}, \d+ of 12\n", ended.out)
    assert re.search(r"worst kind: fog, mean \d+\.\d\d%", ended.out)
    assert ended.lines[-1].startswith("jpeg: 12/12 done")
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"record: {folder}" in ended.out
    for name in ("corruption-accuracy", "corruption-sheet"):
        assert f"picture: {folder / name}.png" in ended.out
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert "</svg>" in (folder / f"{name}.svg").read_text()
    assert "went on with the record that was there" in robust_corrupt(*FEW).out
    assert "corruption" in robust_runs("ls", tmp_path / "runs").out
    assert "worst kind: fog" in robust_runs("status", folder).out
    checked = robust_runs("verify", folder)
    assert checked.code == 0, checked.err
    assert re.match(r"replayed (\d+) of \1 adversarial examples", checked.out)
    summary = folder / "summary.json"
    summary.write_text(summary.read_text().replace('"worst_kind": "fog"', '"worst_kind": "jpeg"'))
    assert robust_runs("verify", folder).code == 7


def test_the_search_says_what_breaks_and_how_much_of_it(robust_corrupt, robust_runs, tmp_path):
    given = (*MODEL, "--search", "--families", "rotate,noise", "--levels", 3, "--draws", 4)
    ended = robust_corrupt(*given, "--save-adversarial")
    assert ended.code == 0, ended.err
    row = r"\d+\.\d\d% │ \[\d+\.\d\d%, \d+\.\d\d%\] +│ +\d+ of \d+ │ +\d+ │ +[\d.-]+ │"
    for name, unit in (("rotate", "degrees"), ("noise", "standard deviation")):
        assert re.search(rf"{name} +│ +{row} {unit}", ended.out)
    (folder,) = (tmp_path / "runs").iterdir()
    assert "transformation" in robust_runs("ls", tmp_path / "runs").out
    checked = robust_runs("verify", folder)
    assert checked.code == 0, checked.err
    assert re.match(r"replayed (\d+) of \1 adversarial examples", checked.out)
    found = json.loads(robust_corrupt(*given, "--json").out)
    assert [f["name"] for f in found["transformation"]["families"]] == [
        "rotate",
        "noise",
        "mixture",
    ]


def test_json_is_all_there_is_on_stdout(robust_corrupt):
    found = json.loads(robust_corrupt(*FEW, "--json").out)
    cells = found["corruption"]["cells"]
    assert [(c["kind"], c["severity"]) for c in cells] == [
        ("fog", 1), ("fog", 5), ("jpeg", 1), ("jpeg", 5),
    ]  # fmt: skip
    assert all(c["accuracy"]["n"] == 12 for c in cells)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "give a --model"),
        ((*MODEL, "--kinds", "fogg"), 2, "did you mean 'fog'"),
        ((*MODEL, "--kinds", "saturate"), 5, "'saturate' needs three channels"),
        ((*MODEL, "--severities", "0,1"), 2, "no list of numbers from 1 to 5"),
        ((*MODEL, "--severities", "1,x"), 2, "no list of numbers from 1 to 5"),
        ((*MODEL, "--severities", ""), 2, "--severities is empty"),
        ((*MODEL, "--levels", 3), 2, "--levels belongs to --search"),
        ((*MODEL, "--search", "--kinds", "fog"), 2, "--kinds is about corruptions"),
        ((*MODEL, "--search", "--families", "spin"), 2, "no 'spin'"),
        ((*MODEL, "--search", "--levels", 0), 2, "levels"),
        (("--model", "breast-cancer-mlp"), 5, "corruptions are of images"),
        (("--model", "breast-cancer-mlp", "--search", "--families", "blur"), 5, "is for images"),
        (("--model", "fmnist-cnn-pgx"), 3, "did you mean 'fmnist-cnn-pgd'"),
        ((*MODEL, "--data", "no-such"), 4, "no-such"),
    ],
)
def test_bad_input_is_one_line(robust_corrupt, tmp_path, arguments, code, message):
    ended = robust_corrupt(*arguments)
    assert (ended.code, ended.out, len(ended.lines)) == (code, "", 1), ended.err
    assert ended.err.startswith("robust-corrupt: error: ")
    assert message in ended.err
    assert not (tmp_path / "runs").exists()
