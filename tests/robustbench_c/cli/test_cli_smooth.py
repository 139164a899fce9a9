"""`robust-smooth` as a stranger meets it."""

from __future__ import annotations

import json
import re

import pytest


@pytest.fixture
def robust_smooth(command, tmp_path):
    def run(*arguments: object):
        small = ["--device", "cpu", "--out", tmp_path / "runs"]
        if "--smooth-n" not in arguments:
            small += ["--smooth-n", 50, "--smooth-n0", 10]
        return command("robust-smooth", *small, *arguments)

    return run


ZOO = ("--model", "fmnist-cnn-pgd", "--smooth", 0.25, "--samples", 12)


def test_table_pictures_and_record(robust_smooth, robust_runs, tmp_path):
    ended = robust_smooth(*ZOO, "--eps", 0.1)
    assert ended.code == 0, ended.err
    first, *_ = ended.out.splitlines()
    assert first == (
        "smoothed classifier of fmnist-cnn-pgd, sigma 0.25, n0 10, n 50, alpha 0.001 "
        "on fashion-mnist-mini"
    )
    for name in ("right without attack", "abstained", "wrong", "certified, L2 radius 0.25"):
        assert re.search(
            rf"{name} +│ +\d+\.\d\d% │ \[\d+\.\d\d%, \d+\.\d\d%\] +│ +\d+ of 12", ended.out
        )
    radii = re.findall(r"L2 radius (\S+)", ended.out)
    assert radii == ["0.1", "0.25", "0.5", "0.75", "1"]
    assert "50 draws certify radii up to 0.2827 even if all agree; 0.5 takes at least" in ended.out
    assert "not of the model inside it" in ended.out
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"record: {folder}" in ended.out
    assert (folder / "certified-accuracy-vs-radius.png").read_bytes()[:4] == b"\x89PNG"
    assert "</svg>" in (folder / "certified-accuracy-vs-radius.svg").read_text()
    assert re.fullmatch(r"smoothing: (\d+)/\1 done, \d+ certified, .*peak \d+ MB", ended.lines[-1])
    again = robust_smooth(*ZOO, "--eps", 0.1)
    assert "went on with the record that was there" in again.out
    assert "smoothed-fmnist-cnn-pgd" in robust_runs("ls", tmp_path / "runs").out
    assert "certified" in robust_runs("status", folder).out
    checked = robust_runs("verify", folder)
    assert checked.code == 0, checked.err
    assert checked.out.startswith("everything that was checked holds")
    summary = folder / "summary.json"
    summary.write_text(summary.read_text().replace('"wrong": ', '"wrong": 1'))
    assert robust_runs("verify", folder).code == 7


def test_json_is_all_there_is_on_stdout(robust_smooth):
    content = json.loads(robust_smooth(*ZOO, "--json").out)
    assert content["alpha_per_sample"] == 0.001
    kinds = ("right", "abstained", "wrong", "error")
    assert sum(content[kind]["k"] for kind in kinds) == content["summary"]["samples"] == 12
    assert [row["radius"] for row in content["certified"]] == [0.25, 0.5, 0.75, 1.0]
    accuracies = [row["value"] for row in content["certified"]]
    assert sorted(accuracies, reverse=True) == accuracies


def test_data_of_ones_own(robust_smooth, factories, own):
    for kind in own.values():
        arguments = ("--model", f"{factories}:means", "--trust-checkpoint", "--data", kind)
        ended = robust_smooth(*arguments, "--smooth", 0.1, "--label-column", "label")
        if kind.suffix != ".csv":
            ended = robust_smooth(*arguments, "--smooth", 0.1)
        assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "give a --model"),
        (("--model", "fmnist-cnn-pgd"), 2, "give --smooth SIGMA"),
        (("--model", "fmnist-cnn-pgx", "--smooth", 0.25), 3, "did you mean 'fmnist-cnn-pgd'"),
        (("--model", "fmnist-cnn-pgd", "--smooth", 0), 5, "sigma has to be above 0"),
        (("--model", "fmnist-cnn-pgd", "--smooth", "nan"), 5, "sigma has to be above 0"),
        (("--model", "fmnist-cnn-pgd", "--smooth", "much"), 2, "'--smooth'"),
        ((*ZOO, "--smooth-alpha", 0), 5, "alpha has to be between 0 and 0.5"),
        ((*ZOO, "--smooth-n0", 0), 5, "n0 has to be from 1"),
        ((*ZOO, "--smooth-n", 9), 5, "at least 10 are needed"),
        ((*ZOO, "--eps", 0.5), 5, "cannot certify an L2 radius beyond 0.5 at sigma 0.25"),
        ((*ZOO, "--eps", -1), 5, "eps"),
        ((*ZOO, "--eps", "nan"), 5, "eps"),
        ((*ZOO, "--seed", -1), 2, "seed"),
        ((*ZOO, "--batch-size", 0), 2, "batch-size"),
        ((*ZOO, "--device", "tpu"), 2, "tpu"),
        (("--model", "fmnist-cnn-pgd", "--smooth", 0.25, "--samples", 0), 4, "0 samples"),
        ((*ZOO, "--data", "no-such"), 4, "no-such"),
    ],
)
def test_bad_input_is_one_line(robust_smooth, tmp_path, arguments, code, message):
    ended = robust_smooth(*arguments)
    assert (ended.code, ended.out) == (code, "")
    assert len(ended.lines) == 1
    assert ended.err.startswith("robust-smooth: error: ")
    assert message in ended.err
    assert not (tmp_path / "runs").exists()


def test_a_model_that_answers_nan_on_clean_data_is_refused(robust_smooth, factories, own):
    model = ("--model", f"{factories}:Nan", "--trust-checkpoint", "--data", own["npz"])
    ended = robust_smooth(*model, "--smooth", 0.1)
    assert (ended.code, len(ended.lines)) == (3, 1)
    assert "NaN or Inf on sample 5" in ended.err
