"""Compiled gradients: the verdicts of the plain module, and a line where there is no compiler."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

import robustbench_c
from attacks import compiled
from attacks.classifier import TiledClassifier
from attacks.errors import CompileError
from attacks.pgd import PGDConfig, pgd
from attacks.square import SquareConfig
from attacks.threat import ThreatModel
from robustbench_c.errors import UsageError
from robustbench_c.evaluation.protocol_steps import attack_of, attack_step, is_compiled

THREAT = ThreatModel.box("linf", 0.05)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


@pytest.fixture
def samples(net):
    x = torch.rand(50, 12) * 0.6 + 0.2
    with torch.no_grad():
        net[2].bias -= net(x).mean(0)
    return x, net(x).argmax(1)


def test_what_is_compiled_is_said_and_nothing_else_changes():
    plain, made = (attack_step("pgd", PGDConfig(), THREAT, compile=c) for c in (False, True))
    assert made.parameters == {**plain.parameters, "compile": True}
    assert (is_compiled(plain), is_compiled(made)) == (False, True)
    assert attack_of(made) == attack_of(plain)
    square = attack_step("square", SquareConfig(), THREAT, compile=True)
    assert not is_compiled(square), "it has no gradients"


def test_no_gradients_no_compiling(net, samples, tmp_path):
    with pytest.raises(UsageError, match="no attack here has gradients"):
        robustbench_c.evaluate(
            net, *samples, THREAT, attack=SquareConfig(5), compile=True, out=tmp_path
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda module: _raises, r"does not work here with this model \(no compiler\)"),
        (lambda module: lambda x: module(x) * 1.01, "gives other values for this model"),
    ],
)
def test_a_compiler_that_fails_is_one_line(net, samples, monkeypatch, tmp_path, made, words):
    monkeypatch.setattr(compiled.torch, "compile", lambda module, **_: made(module))
    with pytest.raises(CompileError, match=words) as error:
        robustbench_c.evaluate(net, *samples, THREAT, compile=True, out=tmp_path)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def _raises(x: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("\nno compiler\nand a long trace")


def test_gradients_alone_are_compiled(net, samples, monkeypatch, tmp_path):
    calls = []

    def counting(module: nn.Module, **_: object):
        return lambda x: calls.append(len(x)) or module(x)

    monkeypatch.setattr(compiled.torch, "compile", counting)
    options = {"attack": PGDConfig(5, 1), "diagnose": False}
    plain = robustbench_c.evaluate(net, *samples, THREAT, out=tmp_path / "plain", **options)
    assert not calls
    made = robustbench_c.evaluate(
        net, *samples, THREAT, compile=True, out=tmp_path / "made", **options
    )
    assert len(set(calls)) == 1, "one tile"
    assert set(calls) == {made.store.manifest.tiles[-1]}
    a, b = (run.store.read_step("pgd").drop(columns="seconds") for run in (plain, made))
    assert a.equals(b), "here the compiled module is the plain one"
    assert plain.folder.name != made.folder.name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
def test_verdicts_are_those_of_the_plain_module(net, samples):
    x, y = samples
    plain = TiledClassifier(net, (32, 64))
    made = compiled.compiled(plain, x)
    assert made.tiles == (64,)
    ids, config = torch.arange(50), PGDConfig(20, 2)
    one, other = (pgd(c, x, y, ids, THREAT, config, 0) for c in (plain, made))
    assert torch.equal(one.found, other.found)
    assert 0 < int(one.found.sum()) < 50
    assert torch.allclose(one.lowest, other.lowest, atol=1e-4)
