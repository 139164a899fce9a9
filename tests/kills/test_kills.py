"""`kill -9` at random moments of attacks, bounds and trainings: nothing is lost, nothing twice.

    pytest tests/kills -m slow -s

prints where each of the 50 kills landed.
"""

from __future__ import annotations

import time
from random import Random

import pytest
from killing import Case, Kill, Nursery, compare, done, finished, table, torment

CPU = ("--device", "cpu")
MLP = ("robust-eval", "--model", "breast-cancer-mlp", *CPU, "--batch-size", "4")
CNN = ("robust-eval", "--model", "fmnist-cnn-standard", *CPU, "--batch-size", "8")
EPS, SHORT = ("--eps", "0.02"), ("--steps", "10", "--restarts", "1", "--no-diagnose")
KEEP = "--save-adversarial"
FEW = ("--certify-subproblems", "10")
CASCADE = ("--certify", "cascade", *FEW, "--samples", "48")
TRAIN = ("robust-train", "--recipe", "breast-cancer-mlp", *CPU)
SPARSE = ("robust-train", "--recipe", "rigl", "--data", "breast-cancer", "--arch", "mlp", *CPU)
PGD = ("--objective", "pgd", "--eps", "0.1", "--steps", "10")

CASES = {
    "attacks": (
        Case("pgd, MLP", (*MLP, "--eps", "0.02", "--restarts", "8", KEEP), 8),
        Case("apgd, MLP", (*MLP, "--attack", "apgd", "--eps", "0.02", KEEP), 7),
        Case(
            "pgd, CNN", (*CNN, "--eps", "0.03", "--samples", "160", *SHORT, KEEP), 5, workers=True
        ),
    ),
    "bounds": (
        Case("complete", (*MLP, "--attack", "none", *EPS, "--certify", "complete", *FEW), 8),
        Case("cascade", (*MLP, *CASCADE, *SHORT, *EPS, KEEP), 7),
        Case("cascade, shared", (*MLP, *CASCADE, *SHORT, *EPS), 5, workers=True),
    ),
    "training": (
        Case("pgd, MLP", (*TRAIN, *PGD, "--epochs", "30"), 4, workers=None),
        Case(
            "sparse, MLP",
            (*SPARSE, "--sparsity", "0.8", "--epochs", "15", "--validation", "57"),
            3,
            workers=None,
        ),
        Case(
            "federated, MLP",
            (*TRAIN, *PGD, "--epochs", "20", "--validation", "0", "--clients", "3"),
            3,
            workers=None,
        ),
    ),
}


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    found = Nursery(tmp_path_factory.mktemp("logs"))
    yield found
    found.close()


def kill_often(nursery: Nursery, case: Case, folder, seed: int) -> list[Kill]:
    started = time.monotonic()
    whole = finished(nursery, case, folder / "whole")
    seconds, total = time.monotonic() - started, done(case, folder / "whole")
    return torment(nursery, case, whole, total, seconds, folder, Random(seed))


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_killed_at_random_moments(nursery, tmp_path, capsys, kind):
    kills = []
    for number, case in enumerate(CASES[kind]):
        (tmp_path / str(number)).mkdir()
        kills += kill_often(nursery, case, tmp_path / str(number), seed=number)
    with capsys.disabled():
        print(f"\n{len(kills)} kills of {kind}\n{table(kills)}")
    assert len(kills) == sum(case.kills for case in CASES[kind])
    assert len({kill.done for kill in kills}) > 3


def test_killed_and_gone_on_with_in_short(nursery, tmp_path):
    case = Case("pgd", (*MLP, *EPS, "--samples", "48", *SHORT, KEEP), 1)
    assert len(kill_often(nursery, case, tmp_path, seed=1)) == 1


def test_what_compares_sees_a_difference(tmp_path):
    for name, loss in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.jsonl").write_text(f'{{"loss": {loss}, "seconds": {loss}}}\n')
    case = Case("training", (), 0, workers=None)
    with pytest.raises(AssertionError, match="differs from"):
        compare(case, tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "log.jsonl").write_text('{"loss": 1.0, "seconds": 9}\n')
    compare(case, tmp_path / "a", tmp_path / "b")
    (tmp_path / "a" / ".x.0a.tmp").touch()
    with pytest.raises(AssertionError):
        compare(case, tmp_path / "a", tmp_path / "b")
