"""`robust-eval --certify` and `robust-runs verify --prove`, with a prover of the tests' own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from certify import methods
from leaderboards.listing import list_runs
from leaderboards.store import RunStore
from robustbench_c.evaluation.certifying import METHODS

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))
from toy_certifiers import IntervalCertifier  # the same for every method

LAYERS = """
from torch import nn
import torch

def net():
    torch.manual_seed(0)
    class Net(nn.Sequential):
        def forward(self, x):
            return super().forward(x.flatten(1))
    hidden, last = nn.Linear(16, 8), nn.Linear(8, 2)
    with torch.no_grad():
        hidden.weight.fill_(0.5); hidden.bias.fill_(-3.0)
        last.weight[0].fill_(-1.0); last.weight[1].fill_(1.0)
        last.bias[0] = 8.0; last.bias[1] = -8.0
    return Net(hidden, nn.ReLU(), last).eval()
"""


@pytest.fixture
def source(tmp_path, own):
    path = tmp_path / "layers.py"
    path.write_text(LAYERS)
    model = ("--model", f"{path}:net", "--trust-checkpoint")
    return (*model, "--data", own["npz"], "--box", "0,1")


@pytest.fixture(autouse=True)
def _engine(monkeypatch):
    monkeypatch.setattr(methods, "Certifier", IntervalCertifier.make)


@pytest.fixture
def only_run(tmp_path):
    def look():
        (listed,) = list_runs(tmp_path / "runs")
        assert listed.problem is None
        return listed

    return look


def test_cascade_shows_the_sandwich_and_every_step(robust_eval, robust_runs, source, only_run):
    ended = robust_eval(*source, "--eps", 0.03, "--certify", "cascade", "--radius")
    assert ended.code == 0, ended.err
    summary = only_run().summary
    assert summary.counts.certified > 3
    assert summary.counts.broken > 1
    for rate in (summary.clean_accuracy, summary.robust_accuracy, summary.certified_accuracy):
        assert f"{rate.value:.2%} │ [{rate.lower:.2%}, {rate.upper:.2%}]" in ended.out
    for step in summary.steps[1:]:
        # radii are measured of all samples that are right
        tried = step.samples - (0 if step.name == "radius" else step.audited)
        assert re.search(rf"│ {step.name} +│ +{tried} │ +{step.broken} │ ", ended.out), step.name
    assert re.search(r"certified radius +┃ minimum +┃ q10", ended.out)
    assert "certified-radius.png" in ended.out
    assert re.search(r"ibp: (\d+)/\1 done, \d+ settled, .*peak \d+ MB", ended.err)
    ended = robust_runs("verify", only_run().folder, *source)
    assert "certificates were not proved again" in ended.out
    ended = robust_runs("verify", only_run().folder, *source, "--prove")
    assert ended.code == 0, ended.err
    assert re.search(r"proved (\d+) of \1 certificates again", ended.out)
    assert (
        f"{summary.certified_accuracy.value:.2%}" in robust_runs("ls", only_run().folder.parent).out
    )


@pytest.mark.parametrize("method", METHODS)
def test_one_certificate_alone(robust_eval, source, only_run, method):
    ended = robust_eval(*source, "--eps", 0.03, "--certify", method, "--attack", "none")
    assert ended.code == 0, ended.err
    assert f"certified ({method})" in ended.out
    assert "robust (no attack)" in ended.out
    steps = only_run().manifest.protocol.steps
    assert [step.name for step in steps] == [method]


def test_undecided_by_reason(robust_eval, source, only_run):
    ended = robust_eval(*source, "--eps", 0.03, "--certify", "ibp", "--attack", "none")
    undecided = only_run().summary.counts.undecided
    assert undecided > 0
    assert f"{undecided} undecided ({undecided} unknown)" in ended.out


def test_budgets_are_recorded(robust_eval, source, only_run):
    ended = robust_eval(
        *(*source, "--eps", 0.03, "--certify", "complete", "--certify-iterations", 3),
        *("--certify-subproblems", 70, "--certify-seconds", 1.5),
    )
    assert ended.code == 0, ended.err
    manifest = only_run().manifest
    settings = manifest.protocol.steps[-1].parameters
    assert [settings[k] for k in ("iterations", "subproblems", "seconds")] == [3, 70, 1.5]
    assert not manifest.reproducible


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--certify", "crwn"), "no certificate 'crwn'; did you mean 'crown'"),
        (("--certify", "crown", "--certify-iterations", 0), "--certify-iterations"),
        (("--radius",), "--radius is about proofs: add --certify"),
        (("--cross-check",), "--cross-check is about proofs: add --certify"),
        (("--attack", "none"), "neither an attack nor a certificate"),
        (("--attack", "noone", "--certify", "ibp"), "did you mean 'none'"),
    ],
)
def test_bad_options_are_one_line(robust_eval, source, tmp_path, arguments, message):
    ended = robust_eval(*source, "--eps", 0.03, *arguments)
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.lines) == 1
    assert not (tmp_path / "runs").exists()


def test_radius_of_eps_0_is_refused(robust_eval, source):
    ended = robust_eval(*source, "--eps", 0, "--certify", "ibp", "--radius")
    assert (ended.code, len(ended.lines)) == (2, 1)


def test_contradiction_ends_with_7(robust_eval, source, tmp_path, monkeypatch):
    from toy_certifiers import outcomes

    from certify.result import Outcome

    class Liar(IntervalCertifier):
        def certify(self, *arguments):
            found = super().certify(*arguments)
            return outcomes(found, Outcome.CERTIFIED, lower=found.lower.abs() + 1)

    monkeypatch.setattr(methods, "Certifier", Liar.make)
    ended = robust_eval(*source, "--eps", 0.03, "--certify", "ibp")
    assert ended.code == 7
    assert "both certified and broken" in ended.lines[-1]
    (folder,) = (tmp_path / "runs").iterdir()
    assert list((folder / "contradiction").glob("*.safetensors"))


def test_list_shows_certificates(robust_eval):
    assert f"certificates: {', '.join(METHODS)}, cascade" in robust_eval("--list").out


PROTOCOL = """
name = "tiny-cascade-v1"
description = "For a test."
data = "{data}"
norm = "linf"
eps = 0.03
steps = 3
restarts = 1
step_size = 0.01
loss = "margin"
goal = "untargeted"
certify = "{certify}"
certify_iterations = 4
"""


def test_a_protocol_fixes_the_certificate(command, source, own, tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(PROTOCOL.format(data=own["npz"], certify="cascade"))
    model = [a for a in source if a not in ("--data", own["npz"])]
    base = (
        "robust-eval",
        *model,
        "--protocol",
        path,
        "--device",
        "cpu",
        "--out",
        tmp_path / "runs",
    )
    ended = command(*base)
    assert ended.code == 0, ended.err
    (folder,) = (tmp_path / "runs").iterdir()
    steps = {s.name: s for s in RunStore.open(folder).manifest.protocol.steps}
    assert steps["alpha-crown"].parameters["iterations"] == 4
    assert len(steps) == 7
    for option in (
        ("--certify", "ibp"),
        ("--radius",),
        ("--attack", "none"),
        ("--certify-seconds", 1),
    ):
        ended = command(*base, *option)
        assert ended.code == 2
        assert f"fixes {option[0]}" in ended.err
    path.write_text(PROTOCOL.format(data=own["npz"], certify="cascad"))
    assert "did you mean 'cascade'" in command(*base).err
