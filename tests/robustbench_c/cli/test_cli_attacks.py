"""`--attack` by name, with its settings, in records that verify."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import pytest

from attacks import registry, suites
from leaderboards.store import RunStore
from robustbench_c.cli import attacks, minimal

SAMPLES = ("--model", "breast-cancer-mlp", "--norm", "linf", "--eps", 0.05, "--eps-unit", "range")
L0 = ("--norm", "l0", "--eps", 3, "--eps-unit", "input")


@pytest.fixture
def attack(command, tmp_path):
    """Run robust-eval on a table of two classes, with the record in `tmp_path / "runs"`."""

    def run(*words):
        given = ("--samples", 30, "--device", "cpu", "--out", tmp_path / "runs", "--json")
        return command("robust-eval", *SAMPLES, *given, "--attack", *words)

    return run


def test_the_names_are_those_of_the_attacks():
    assert tuple(registry.KINDS) == attacks.KINDS
    assert tuple(suites.SUITES) == attacks.SUITES
    asked = {name for name, kind in registry.KINDS.items() if kind.minimal == "asked"}
    assert set(minimal.ATTACKS) == asked
    assert [k for k in registry.KINDS.values() if k.minimal == "always"] == [
        registry.KINDS[minimal.NEAREST]
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("auto",),
        ("apgd", "--steps", 5, "--targets", 3),
        ("fab", "--set", "steps=10"),
        ("fab", "--minimal", "--set", "steps=10"),
        ("nearest", "--steps", 20, "--restarts", 1, "--set", "queries=10"),
        ("square", "--set", "queries=30"),
        ("hop-skip-jump", "--set", "queries=40"),
        ("foolbox:LinfDeepFoolAttack", "--set", "steps=5"),
    ],
    ids=lambda words: words[0],
)
def test_an_attack_is_recorded_resumed_and_verified(attack, robust_runs, tmp_path, words):
    first = attack(*words, "--save-adversarial")
    assert first.code == 0, first.err
    found = json.loads(first.out)
    assert found["counts"]["error"] == 0
    assert 0 < found["robust_accuracy"]["value"] < found["clean_accuracy"]["value"]
    assert attack(*words, "--save-adversarial").out == first.out
    (folder,) = (tmp_path / "runs").iterdir()
    assert robust_runs("verify", folder).code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sqare",), "did you mean 'square'"),
        (("PGD",), "did you mean 'pgd'"),
        (("foolbox:linfpgd",), "did you mean 'LinfPGD'"),
        (("foolbox:LinfDepFool",), "did you mean 'LinfDeepFoolAttack'"),
        (("square", "--steps", 3), "the attack 'square' has no 'steps'"),
        (
            ("square", "--set", "queries=abc"),
            "'square' is 'abc', not a whole number",
        ),
        (
            ("square", "--set", "queries=99.0"),
            "queries of the attack 'square' is 99.0, not a whole",
        ),
        (("apgd", "--set", "steps=1e999"), "--set 'steps=1e999' is out of range"),
        (("apgd-halving", "--set", "rounds=1000"), "the last of 1000 rounds is of more than"),
        (("fmn", "--set", "alpha=abc"), "alpha of the attack 'fmn' is 'abc', not a number or none"),
        (
            ("transformations", "--set", "families=foo"),
            "families of the attack 'transformations' is foo, not some of rotate, shift, "
            "rotate-shift, blur, contrast, brightness, noise, jpeg or none",
        ),
        (("nearest", *L0, "--set", "queries=10"), "queries is 10: nearest in l0"),
        (("nearest", *L0, "--targets", 2), "targets is 2: nearest in l0"),
        (("nearest", *L0, "--steps", 9), "steps is 9: it must be at least 11"),
        (("transformations", "--set", "families=3"), "families of the attack 'transformations'"),
        (("foolbox:LinfPGD", "--set", "restarts=x"), "restarts of the attack 'foolbox' is 'x'"),
        (("foolbox:LinfPGD", "--set", "rel_stepsize=NaN"), "it must be finite and at least 0"),
        (("square", "--set", "queries"), "is not of the form KEY=VALUE"),
        (("auto", "--steps", 3), "--steps is no setting of the suite 'auto'"),
        (
            ("auto", *L0),
            "the suite auto has no form in l0 (its apgd is for linf, l2, l1): --attack takes "
            "sigma-zero, nearest there",
        ),
        (("pgd", "--set", "steps=3", "--steps", 4), "steps is given twice (--set steps=...)"),
        (("pgd", "--set", "steps=3", "--set", "steps=4"), "steps is given twice"),
        (("ddn",), "the attack ddn is for l2, not for linf"),
        (("ddn", "--minimal"), "the attack ddn-minimal is for l2, not for linf"),
        (("apgd", "--minimal"), "the attack 'apgd' does not look for the nearest example; use"),
        (("none", "--minimal"), "the attack 'none' does not look for the nearest example; use"),
        (("fab", "--minimal", "--explain", "gradient"), "--minimal does not go with --explain"),
        (("apgd", "--steps", 0), "must be at least 1"),
        (("foolbox:L2DeepFoolAttack",), "is an attack in l2"),
        (("none", "--certify", "ibp", "--set", "steps=3"), "--set is a setting of an attack"),
    ],
)
def test_wrong_words_are_one_line(attack, words, told, tmp_path):
    ended = attack(*words)
    assert ended.code in (2, 5)
    assert told in ended.lines[-1]
    assert ended.out == ""
    assert not (tmp_path / "runs").exists()


def test_the_list_shows_norms_needs_and_settings(command):
    ended = command("robust-eval", "--list")
    assert ended.code == 0, ended.err
    for kind in registry.KINDS.values():
        if kind.name == "foolbox":
            continue
        (line,) = [x for x in ended.out.splitlines() if x.split()[:1] == [kind.name]]
        assert kind.knowledge in line
        assert all(norm in line for norm in kind.norms)
        for setting in fields(kind.config):
            assert re.search(rf"\b{setting.name}=\S", line), (kind.name, setting.name)
    assert re.search(r"steps=40, restarts=5, step_size=none, loss=ce \(ce, margin, dlr", ended.out)
    assert "LinfDeepFoolAttack" in ended.out
    assert "auto, autoattack" in ended.out


FEW = ("--model", "fmnist-cnn-standard", "--samples", 20, "--device", "cpu", "--norm", "l0")


def test_features_that_may_change_are_counted(command, robust_runs, tmp_path):
    given = (*FEW, "--attack", "sigma-zero", "--steps", 60, "--out", tmp_path / "runs", "--json")
    found = []
    for eps in (1, 12):
        ended = command("robust-eval", *given, "--eps", eps, "--save-adversarial")
        assert ended.code == 0, ended.err
        found.append(json.loads(ended.out)["robust_accuracy"]["k"])
    assert found[0] > found[1]
    for folder in (tmp_path / "runs").iterdir():
        assert robust_runs("verify", folder).code == 0
        store = RunStore.open(folder)
        threat, rows = store.manifest.protocol.threat, store.read_step("sigma-zero")
        assert threat.norm == "l0"
        moved = rows["distance"].dropna()
        assert len(moved)
        assert moved.between(1, threat.eps).all()
        assert (moved % 1 == 0).all()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--eps", 20), "the attack pgd is for linf, l2, l1, not for l0, which takes sigma-zero"),
        (("--eps", 20, "--attack", "auto"), "--attack takes sigma-zero, nearest there"),
        (("--eps", 2.5, "--attack", "sigma-zero"), "of l0, --eps is a number of features"),
        (("--attack", "sigma-zero"), "of l0, --eps is a number of features"),
        (("--eps", 2, "--eps-unit", "range", "--attack", "sigma-zero"), "has no --eps-unit"),
        (("--eps", 2, "--attack", "sigma-zero", "--certify", "ibp"), "no proof is about l0"),
        (("--eps", 2, "--explain", "gradient"), "in linf, l2 and l1, not in l0"),
    ],
)
def test_what_l0_does_not_have_is_one_line(command, words, told, tmp_path):
    ended = command("robust-eval", *FEW, *words, "--out", tmp_path / "runs")
    assert (ended.code, len(ended.lines)) == (2, 1)
    assert told in ended.err
    assert not (tmp_path / "runs").exists()


def random_model(factories, own, *words):
    return ("--model", f"{factories}:Noisy", "--trust-checkpoint", "--data", own["npz"], *words)


def test_a_random_model_is_averaged_on_request(robust_eval, robust_runs, factories, own, tmp_path):
    given = random_model(factories, own)
    budget = ("--norm", "linf", "--eps", 0.03, "--save-adversarial")
    ended = robust_eval(*given, *budget)
    assert (ended.code, len(ended.lines)) == (3, 1)
    assert "the model's output is random" in ended.err
    ended = robust_eval(*given, *budget, "--eot", 6)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("mean of 6 draws of models.py:Noisy on own")
    assert re.search(r"on 6 other draws: clean accuracy \d+\.\d\d% \[.*\], \d+ of 24", ended.out)
    assert re.search(r"on 6 other draws: \d+ of \d+ adversarial examples hold \(", ended.out)
    (folder,) = (tmp_path / "runs").iterdir()
    assert json.loads((folder / "summary.json").read_text())["other_draws"]["held"]["n"] > 0
    checked = robust_runs("verify", folder, *given)
    assert checked.code == 0, checked.err
    assert re.match(r"replayed ([1-9]\d*) of \1 ", checked.out)


@pytest.mark.parametrize("words", [("--certify", "ibp"), ("--explain", "gradient")])
def test_a_mean_over_draws_goes_with_attacks_alone(robust_eval, factories, own, words):
    given = random_model(factories, own, "--norm", "linf", "--eps", 0.03, "--eot", 4)
    ended = robust_eval(*given, *words)
    assert (ended.code, len(ended.lines)) == (2, 1)
    assert f"--eot goes with attacks alone: leave out {words[0]}" in ended.err


def test_the_nearest_examples_are_a_table_and_a_curve(command, tmp_path, robust_runs):
    given = (*SAMPLES, "--samples", 30, "--device", "cpu", "--out", tmp_path / "runs")
    small = ("--minimal", "--steps", 20, "--restarts", 1, "--set", "queries=10")
    ended = command("robust-eval", *given, *small, "--certify", "crown", "--radius")
    assert ended.code == 0, ended.err
    (folder,) = (tmp_path / "runs").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    median = summary["distance"]["median"]
    assert summary["radius"]["median"] < median
    row = next(
        line
        for line in ended.out.splitlines()
        if f"of {summary['distance']['searched']} sa" in line
    )
    assert f"{median:.4g}" in row
    assert "distance found exceeds certified radius by at most 1% on " in ended.out
    assert "accuracy-curve.png" in ended.out
    lines = (folder / "accuracy-curve.csv").read_text().splitlines()
    assert lines[0] == "eps,certified,empirical,samples"
    assert all(int(line.split(",")[1]) <= int(line.split(",")[2]) for line in lines[1:])
    assert "distance found" in robust_runs("status", folder).out
    assert robust_runs("verify", folder).code == 0
    assert robust_runs("compare", folder, folder).code == 0
