"""Sets with attributes at the command line: trained on, evaluated, checked, named."""

import hashlib

import pytest

from leaderboards.sample_ids import parse_ids
from leaderboards.store import RunStore
from robustbench_c.cli.app import run_app
from robustbench_c.cli.train import app
from robustbench_c.data import adult, load
from robustbench_c.evaluation import artefacts

OWN = "0-3,5-19,21-30,32-38,40-50,52-55,57-60"
"""Columns of German credit that may not change unless the user says so."""
MANY = "\n".join(
    f"{age}, ?, 1, 9th, {age % 16 + 1}, Widowed, ?, Wife, Other, Male, 0, 0, 40, ?, {label}"
    for age in range(20, 60)
    for label in ("<=50K", ">50K")
)


@pytest.fixture(scope="module")
def credit_mlp(tmp_path_factory):
    """Weights of a small MLP, trained by an ordinary recipe."""
    out = tmp_path_factory.mktemp("model")
    arguments = ["--recipe", "breast-cancer-mlp", "--data", "german-credit", "--epochs", "8"]
    arguments += ["--device", "cpu", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robustbench_c.training.loop.draw", lambda *_: None)
        with pytest.raises(SystemExit) as ended:
            run_app(app, "robust-train", arguments=arguments)
    assert not ended.value.code
    return out / "breast-cancer-mlp.safetensors"


def recorded(ended, tmp_path) -> RunStore:
    assert ended.code == 0, ended.err
    (folder,) = (tmp_path / "runs").iterdir()
    return RunStore.open(folder)


@pytest.mark.parametrize(
    ("options", "immutable", "notice"),
    [
        ((), OWN, "55 of 61 features may not change: those of protected, one-hot"),
        (("--immutable", "none"), "", "every feature may change, those of one-hot and protected"),
        (("--immutable", "protected, purpose"), "10-19,32-35,44,59-60", "17 of 61 features may"),
        (("--immutable", "age,foreign-worker=yes,0"), "0,44,59", "3 of 61 features may not"),
    ],
)
def test_trained_evaluated_and_checked(
    robust_eval, robust_runs, credit_mlp, tmp_path, options, immutable, notice
):
    arguments = ("--model", credit_mlp, "--eps", 0.2, "--certify", "crown", "--save-adversarial")
    ended = robust_eval(*arguments, *options)
    store = recorded(ended, tmp_path)
    assert notice in ended.err
    assert store.manifest.data.name == "german-credit"
    assert store.manifest.protocol.threat.immutable == immutable
    (stored,) = artefacts.read(store, "pgd")
    changed = (stored.adversarial != stored.clean).any(0).nonzero()[:, 0].tolist()
    held = store.manifest.protocol.threat.immutable
    if held:
        assert not set(changed) & set(parse_ids(held).tolist())
    else:
        assert set(changed) & set(load("german-credit").protected_columns)
    ended = robust_runs("verify", store.folder, "--model", credit_mlp, "--prove")
    assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sex", "--immutable: no feature 'sex'; did you mean 'status-and-sex'?"),
        ("61", "--immutable: no feature '61'; known: protected, checking-account, duration"),
        ("none,age", "--immutable: no feature 'none'"),
    ],
)
def test_no_such_feature(robust_eval, credit_mlp, text, words):
    ended = robust_eval("--model", credit_mlp, "--eps", 0.2, "--immutable", text)
    assert ended.code == 2
    assert words in ended.err


def test_adult_from_a_folder(robust_eval, factories, tmp_path, monkeypatch):
    (tmp_path / adult.FILE).write_text(MANY)
    monkeypatch.setattr(adult, "SHA256", hashlib.sha256(MANY.encode()).hexdigest())
    source = ("--model", f"{factories}:means", "--trust-checkpoint", "--data", "adult")
    ended = robust_eval(*source, "--eps", 0.1, "--data-dir", tmp_path)
    store = recorded(ended, tmp_path)
    assert store.manifest.data.samples == 20
    assert "87 of 91 features may not change" in ended.err
    ended = robust_eval(*source, "--eps", 0.1, "--data-dir", tmp_path / "runs")
    assert ended.code == 4
    assert "holds no adult.data and no adult.data.gz" in ended.err


def test_they_are_listed(robust_eval):
    ended = robust_eval("--list")
    assert "german-credit" in ended.out
    assert "12 attributes of a person" in ended.out
