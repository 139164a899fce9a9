"""Masked models through the command: the right flag is red, and who hides it is found out."""

from __future__ import annotations

import json

import pytest

TRUST = "--trust-checkpoint"
DIAGNOSE = "--diagnose"  # see the fixture `robust_eval`


@pytest.fixture
def evaluated(robust_eval, factories, own, tmp_path):
    """Evaluate a model of `factories`; what was printed, its arguments, and the run's folder."""

    def run(factory: str, *more: object):
        model = ("--model", f"{factories}:{factory}", "--data", own["npz"], TRUST)
        ended = robust_eval(DIAGNOSE, *model, "--eps", 0.05, *more)
        assert ended.code == 0, ended.err
        (folder,) = (tmp_path / "runs").iterdir()
        return ended, model, folder

    return run


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        ("Quantised", {"zero-gradient", "quantised-input"}),
        ("Saturated", {"saturated-logits"}),
        ("Late", {"random-output"}),
    ],
)
def test_masked_models_are_unreliable(evaluated, robust_runs, factory, told):
    ended, _, folder = evaluated(factory)
    summary = summary_of(folder)
    assert summary["reliable"] is False
    raised = {flag["name"] for flag in summary["flags"]}
    assert told <= raised
    warnings = [line.split(":")[0] for line in ended.lines if line.startswith("flag ")]
    assert warnings == [f"flag {flag['name']}" for flag in summary["flags"]]
    assert "% unreliable" in ended.out
    assert "no: " in robust_runs("ls", folder.parent).out
    again = robust_runs("status", folder).out
    assert "% unreliable" in again
    assert all(f"flag {name}: " in again for name in told)


def test_an_honest_model_is_reliable(evaluated, robust_runs):
    ended, model, folder = evaluated("means", "--json")
    printed = json.loads(ended.out)
    assert (printed["reliable"], printed["flags"]) == (True, [])
    assert "flag" not in ended.err
    assert "yes" in robust_runs("ls", folder.parent).out
    assert robust_runs("verify", folder, *model).code == 0


@pytest.mark.parametrize(
    "given",
    [
        ("breast-cancer-mlp", "--eps", 0.05, "--eps-unit", "range"),
        pytest.param(
            ("german-mlp-standard", "--eps", 0.1, "--eps-unit", "range"), marks=pytest.mark.slow
        ),
        pytest.param(("fmnist-cnn-pgd", "--samples", 40), marks=pytest.mark.slow),
    ],
)
def test_shipped_models_are_reliable(robust_eval, given, tmp_path):
    assert robust_eval(DIAGNOSE, "--model", *given).code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert (summary_of(folder)["flags"], summary_of(folder)["reliable"]) == ([], True)


def test_a_run_that_is_not_diagnosed(robust_eval, robust_runs, factories, own, tmp_path):
    arguments = ("--model", f"{factories}:means", "--data", own["npz"], "--eps", 0.05, TRUST)
    assert robust_eval(*arguments).code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert not (folder / "diagnostics.json").exists()
    assert summary_of(folder)["reliable"] is None
    assert robust_eval(DIAGNOSE, *arguments).code == 0  # the same run: only this is added
    assert summary_of(folder)["reliable"] is True
    written = (folder / "diagnostics.json").read_bytes()
    assert robust_eval(DIAGNOSE, *arguments).code == 0
    assert (folder / "diagnostics.json").read_bytes() == written  # its seconds, too


def test_whoever_hides_a_red_flag_is_found_out(evaluated, robust_runs):
    _, model, folder = evaluated("Quantised", "--save-adversarial")
    assert robust_runs("verify", folder, *model).code == 0
    summary = folder / "summary.json"
    honest = summary.read_text()
    summary.write_text(honest.replace('"reliable": false', '"reliable": true'))
    ended = robust_runs("verify", folder, *model)
    assert ended.code == 7
    assert "reliable is not what the" in ended.err
    assert "% unreliable" in robust_runs("status", folder).out
    path = folder / "diagnostics.json"
    forged = json.loads(path.read_text())
    for sign in forged["measured"]:
        if sign["held"]:
            sign["held"], sign["value"] = [], 0.0
    path.write_text(json.dumps(forged))
    written = json.loads(honest) | {"flags": [], "reliable": True}
    summary.write_text(json.dumps(written))
    ended = robust_runs("verify", folder, *model)
    assert ended.code == 7
    assert "zero-gradient is not what the model gives" in ended.out
    forged["identity"] = "0" * 64
    path.write_text(json.dumps(forged))
    ended = robust_runs("verify", folder, *model)
    assert ended.code == 7
    assert "of another run; remove the file" in ended.err


def test_without_an_attack_there_is_nothing_to_diagnose(evaluated):
    _, _, folder = evaluated("means", "--attack", "none", "--certify", "ibp")
    assert summary_of(folder)["reliable"] is None


def test_explanations_have_no_diagnostics(command):
    ended = command("robust-eval", "--explain", "gradient", "--no-diagnose")
    assert ended.code == 2
    assert "--no-diagnose is about predictions" in ended.err
