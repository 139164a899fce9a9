"""`--attack` by name, with its settings, in records that verify."""

from __future__ import annotations

import json

import pytest

from attacks import registry, suites
from robustbench_c.cli import attacks

SAMPLES = ("--model", "breast-cancer-mlp", "--norm", "linf", "--eps", 0.05, "--eps-unit", "range")


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


@pytest.mark.parametrize(
    "words",
    [
        ("auto",),
        ("apgd", "--steps", 5, "--targets", 3),
        ("fab", "--set", "steps=10"),
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
        (("foolbox:LinfDepFool",), "did you mean 'LinfDeepFoolAttack'"),
        (("square", "--steps", 3), "the attack 'square' has no 'steps'"),
        (("square", "--set", "queries=abc"), "queries of the attack 'square' is 'abc', not int"),
        (("square", "--set", "queries=99.0"), "queries of the attack 'square' is 99.0, not int"),
        (("apgd", "--set", "steps=1e999"), "--set 'steps=1e999' is out of range"),
        (("apgd-halving", "--set", "rounds=1000"), "the last of 1000 rounds is of more than"),
        (("fmn", "--set", "alpha=abc"), "alpha of the attack 'fmn' is 'abc', not"),
        (("transformations", "--set", "families=3"), "families of the attack 'transformations'"),
        (("foolbox:LinfPGD", "--set", "restarts=x"), "restarts of the attack 'foolbox' is 'x'"),
        (("foolbox:LinfPGD", "--set", "rel_stepsize=NaN"), "a record cannot hold the attack"),
        (("square", "--set", "queries"), "is not of the form KEY=VALUE"),
        (("auto", "--steps", 3), "--steps is no setting of the suite 'auto'"),
        (("ddn",), "the attack ddn is for l2, not for linf"),
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
