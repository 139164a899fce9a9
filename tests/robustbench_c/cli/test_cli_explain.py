"""`robust-eval --explain`, from the command line to the record and back."""

from __future__ import annotations

import json

import pytest
import safetensors.numpy

from leaderboards.sample_ids import parse_ids
from robustbench_c.data import load

SMALL = ("--samples", 6, "--steps", 3, "--restarts", 1)


@pytest.fixture
def explain(robust_eval, monkeypatch):
    """Explain the shipped tabular model's first samples; draw where a curve is asked for."""

    def run(*arguments: object):
        rest = () if "--eps" in arguments or "--gamma" in arguments else ("--eps", 0.01)
        unit = () if "--eps-unit" in arguments else ("--eps-unit", "range")
        if "--explain-eps-curve" not in arguments:
            for name in ("explained_curve.draw_curve", "explained_pictures.draw_samples"):
                monkeypatch.setattr(f"robustbench_c.evaluation.{name}", lambda *_: None)
        kind = () if "--explain" in arguments else ("--explain", "gradient")
        return robust_eval("--model", "breast-cancer-mlp", *kind, *SMALL, *rest, *unit, *arguments)

    return run


def the_run(tmp_path):
    (found,) = (tmp_path / "runs").iterdir()
    return found


def test_a_table_a_record_and_pictures(explain, robust_runs, tmp_path) -> None:
    ended = explain("--save-adversarial", "--explain-eps-curve", "0.02", "--samples", 1)
    assert ended.code == 0, ended.err
    for said in ("clean accuracy", "bent", "certified", "undecided", "certificate / attack"):
        assert said in ended.out
    assert "cosine similarity below 0.9" in ended.out
    run = the_run(tmp_path)
    names = ("explanation-curve", "explanation-eps-curve", "explanations")
    for name in names:
        assert (run / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"{run / name}.png" in ended.out
    kept = safetensors.numpy.load_file(run / "explanations.safetensors")
    assert set(kept) == {"ids", "clean", "bent", "lower", "upper"}
    assert (kept["lower"] <= kept["clean"]).all()
    assert (kept["clean"] <= kept["upper"]).all()
    again = explain("--save-adversarial", "--samples", 1)
    assert "went on with the record" in again.out
    checked = robust_runs("verify", run, "--prove", "--device", "cpu")
    assert (checked.code, "everything that was checked holds" in checked.out) == (0, True)
    assert "gradient" in robust_runs("ls", tmp_path / "runs").out
    assert "certificate / attack" in robust_runs("status", run).out
    assert "not bent" in robust_runs("compare", run, run).out


@pytest.mark.slow
def test_errors_alone_have_no_picture_and_are_not_robust(explain, robust_runs, tmp_path) -> None:
    ended = explain("--gamma", 1e30, "--eps", 0.01, "--explain-eps-curve", "0.01")
    assert (ended.code, "6 error" in ended.out) == (0, True), ended.err
    assert not (the_run(tmp_path) / "explanations.png").exists()
    listed = robust_runs("ls", tmp_path / "runs").out.splitlines()
    (row,) = (line for line in listed if "1e-30" in line)
    assert row.split()[-3:] == ["0.00%", "0.00%", "-"]  # robust, certified, reliable


def test_json_is_the_summary(explain, tmp_path) -> None:
    told = json.loads(explain("--json", "--min-cosine", 0.5, "--explain-method", "linear").out)
    assert told == json.loads((the_run(tmp_path) / "summary.json").read_text())
    assert set(told["explanation"]) == {
        *("bent", "certified", "undecided", "attack", "certificate", "ratio", "metrics"),
        "monotone",
    }


def test_what_is_certified_on_demand(explain, tmp_path) -> None:
    asked = ("--explain-lipschitz", "--explain-lipschitz-budget", 2, "--monotone", "mean texture")
    ended = explain("--attack", "none", *asked)
    assert ended.code == 0, ended.err
    assert "local Lipschitz constant, largest of a logit (at most)" in ended.out
    manifest = json.loads((the_run(tmp_path) / "manifest.json").read_text())
    told = manifest["protocol"]["explanation"]
    assert told["lipschitz_budget"] == 2
    assert told["monotone"] == [{"place": 1, "name": "mean texture"}]
    assert "increasing" in ended.out
    assert "mean texture" in ended.out


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), {"measure": "cosine", "k": None}),
        (("--delta", 3), {"measure": "linf", "threshold": 3.0, "relative": False}),
        (
            ("--measure", "l2", "--relative", "--delta", 0.5),
            {"measure": "l2", "threshold": 0.5, "relative": True},
        ),
        (
            ("--measure", "top-k", "--top-k", 4, "--delta", 0.25),
            {"measure": "top-k", "k": 4, "threshold": 0.25},
        ),
        (
            ("--measure", "into-top-k", "--features", "mean radius,3"),
            {"measure": "into-top-k", "k": 5, "features": "0,3", "threshold": 0.0},
        ),
        (
            ("--measure", "top-k", "--delta", 0.5, "--signed"),
            {"measure": "top-k", "signed": True},
        ),
    ],
)
def test_how_far_is_too_far(explain, tmp_path, arguments, wanted) -> None:
    assert explain(*arguments).code == 0
    manifest = json.loads((the_run(tmp_path) / "manifest.json").read_text())
    criterion = manifest["protocol"]["explanation"]["criterion"]
    assert {key: criterion[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--explain", "smoothgrad", "--explain-steps", 2), {"kind": "smoothgrad", "steps": 2}),
        (
            ("--explain", "integrated-gradients", "--explain-steps", 2, "--explain-of", "margin"),
            {"kind": "integrated-gradients", "of": "margin", "steps": 2},
        ),
        (("--gamma", 0.01), {"gamma": 0.01, "gamma_relative": True}),
        (("--gamma", 0.001, "--gamma-absolute", "--eps", 0.01), {"gamma_relative": False}),
    ],
)
def test_what_is_explained(explain, tmp_path, arguments, wanted) -> None:
    ended = explain(*arguments)
    assert ended.code == 0, ended.err
    manifest = json.loads((the_run(tmp_path) / "manifest.json").read_text())
    protocol = manifest["protocol"]
    assert {key: protocol["explanation"][key] for key in wanted} == wanted
    alone = "--gamma" in arguments and "--eps" not in arguments
    assert protocol["threat"]["eps"] == (0.0 if alone else 0.01)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), {"aim": "measure", "surrogate": 50.0}),
        (("--explain-aim", "mass-centre", "--explain-surrogate", 20), {"surrogate": 20.0}),
        (("--explain-surrogate", "none"), {"aim": "measure", "surrogate": None}),
    ],
)
def test_how_it_is_attacked(explain, tmp_path, arguments, wanted) -> None:
    ended = explain("--explain-method", "none", *arguments)
    assert ended.code == 0, ended.err
    manifest = json.loads((the_run(tmp_path) / "manifest.json").read_text())
    (attack,) = manifest["protocol"]["steps"]
    assert {key: attack["parameters"][key] for key in wanted} == wanted
    aim = "mass-centre" if "mass-centre" in arguments else "measure"
    assert attack["parameters"]["aim"] == aim


def test_protected_attributes_are_the_features_where_none_are_named(robust_eval, tmp_path) -> None:
    (tmp_path / "nets.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def net():\n"
        "    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Linear(61, 8), nn.ReLU(), nn.Linear(8, 2))\n"
    )
    chosen = ("--model", f"{tmp_path / 'nets.py'}:net", "--data", "german-credit", *SMALL)
    chosen += ("--trust-checkpoint",)
    into = ("--explain", "gradient", "--eps", 0.01, "--measure", "out-of-top-k", "--top-k", 10)
    ended = robust_eval(*chosen, *into)
    assert ended.code == 0, ended.err
    manifest = json.loads((the_run(tmp_path) / "manifest.json").read_text())

    features = manifest["protocol"]["explanation"]["criterion"]["features"]
    assert tuple(parse_ids(features)) == load("german-credit", split="test").protected_columns


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--explain", "gradients"), "did you mean 'gradient'"),
        (("--explain-of", "logits"), "--explain-of 'logits'"),
        (("--explain-steps", 5), "--explain-steps belongs to"),
        (("--explain", "smoothgrad", "--explain-steps", 0), "not from 1 to 1000"),
        (("--explain-sigma", 0.1), "--explain-sigma belongs to smoothgrad"),
        (("--explain", "smoothgrad", "--explain-sigma", -1), "sigma is -1"),
        (("--explain-method", "crown"), "no certificate 'crown'"),
        (("--explain-method", "linear,linear"), "named twice"),
        (("--explain-method", "none", "--attack", "none"), "neither an attack nor"),
        (("--gamma", -0.1), "gamma is -0.1"),
        (("--gamma-absolute",), "give --gamma"),
        (("--measure", "l7", "--delta", 1), "no measure 'l7'"),
        (("--measure", "l2"), "give --delta"),
        (("--measure", "top-k"), "give --delta"),
        (("--delta", -1), "threshold is -1"),
        (("--delta", "nan"), "threshold is nan"),
        (("--min-cosine", 1.5), "not from -1 to 1"),
        (("--min-cosine", 0.9, "--delta", 0.1), "leave out --delta"),
        (("--min-cosine", 0.9, "--measure", "l2"), "leave out --delta"),
        (("--relative",), "--relative belongs to"),
        (("--measure", "into-top-k"), "give --features"),
        (("--measure", "into-top-k", "--features", "sex"), "no feature 'sex'"),
        (("--features", "0"), "--features belongs to"),
        (("--top-k", 31), "k is 31"),
        (("--top-k", 0), "k is 0"),
        (("--explain-lipschitz-budget", 2), "add it"),
        (("--explain-lipschitz", "--explain-lipschitz-budget", 0), "from 1 to"),
        (("--explain-lipschitz", "--explain-method", "none"), "name one"),
        (("--signed",), "--signed belongs to"),
        (("--explain-aim", "mass-center"), "did you mean 'mass-centre'"),
        (("--explain-surrogate", "sharp"), "neither a number nor none"),
        (("--explain-surrogate", 0), "surrogate is 0"),
        (("--explain-aim", "measure", "--attack", "none"), "leave out --attack none"),
        (("--monotone", "mean txture"), "--monotone: no feature 'mean txture'"),
        (("--explain-eps-curve", "0.1,x"), "not a list of numbers"),
        (("--explain-eps-curve", "0.1,0"), "finite and above 0"),
        (("--certify", "crown"), "--certify is about predictions"),
        (("--loss", "margin"), "--loss is about predictions"),
        (("--protocol", "x"), "--protocol is about predictions"),
    ],
)
def test_bad_input_is_one_line(explain, arguments, said) -> None:
    ended = explain(*arguments)
    of_attack = ("surrogate is", "sigma is", "gamma is", "threshold is", "k is")
    assert ended.code == (5 if said.startswith(of_attack) else 2)
    assert len(ended.lines) == 1
    assert said in ended.err


def test_options_of_explanations_need_one(robust_eval) -> None:
    for arguments in (("--delta", 1), ("--gamma", 0.1), ("--top-k", 3)):
        ended = robust_eval("--model", "breast-cancer-mlp", *arguments)
        assert (ended.code, len(ended.lines)) == (2, 1)
        assert f"{arguments[0]} is about explanations: add --explain" in ended.err
