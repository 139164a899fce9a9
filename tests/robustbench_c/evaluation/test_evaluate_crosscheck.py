"""The second opinion: agreement is counted, contradiction stops, absence is a notice."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from toy_certifiers import IntervalCertifier, LinearCertifier, only, outcomes

from certify import lirpa
from certify.result import Outcome
from robustbench_c.errors import CheckFailedError
from robustbench_c.evaluation.certifying import CertifyConfig

needs_lirpa = pytest.mark.skipif(lirpa.notice() is not None, reason=str(lirpa.notice()))


@pytest.fixture
def net(linear):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    with torch.no_grad():
        model[2].bias -= model(linear.x).mean(0)
        linear.y.copy_(model(linear.x).argmax(1))
    return linear.with_model(model)


def checked(problem, out, method="ibp", certifier=IntervalCertifier.make, **options):
    config = CertifyConfig(method, cross_check=True)
    return problem.evaluate(out, certify=config, certifier=certifier, eps=0.01, **options)


@needs_lirpa
def test_interval_bounds_are_the_same(net, tmp_path):
    run = checked(net, tmp_path)
    (entry,) = run.cross_check.compared
    assert (entry.step, entry.samples) == ("ibp", len(run.store.read_step("ibp")))
    # folding the margins into the last layer makes theirs tighter than differences of bounds
    assert entry.tighter < 1e-5
    assert entry.looser >= 0
    assert entry.both == entry.ours <= entry.theirs
    told = json.loads((run.folder / "cross-check.json").read_text())
    assert told["problems"] == []
    assert told["compared"][0]["ours"] == entry.ours


@needs_lirpa
def test_exact_bounds_of_a_linear_model_agree_with_each_method(linear, tmp_path):
    run = checked(linear, tmp_path, "cascade", LinearCertifier.make)
    assert [e.method for e in run.cross_check.compared] == ["ibp", "crown-ibp", "crown"]
    assert all(e.tighter < 1e-5 for e in run.cross_check.compared)
    assert sum("auto_LiRPA has none" in line for line in run.cross_check.notices) == 2


@needs_lirpa
def test_a_bound_above_the_upper_bound_stops(linear, tmp_path):
    def too_high(found, x, ids):
        return outcomes(found, Outcome.CERTIFIED, lower=found.lower.abs() + 50)

    with pytest.raises(CheckFailedError, match=r"exceeds its upper bound.*cross-check\.json") as e:
        checked(linear, tmp_path, "crown", only("crown", too_high), attack="none")
    assert e.value.exit_code == 7
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "cross-check.json").read_text())["problems"]


@needs_lirpa
def test_what_it_certifies_may_not_be_broken(linear, tmp_path, monkeypatch):
    real = lirpa.bounds

    def generous(*arguments):
        low, high = real(*arguments)
        return low + 9, high + 9

    monkeypatch.setattr(lirpa, "bounds", generous)
    with pytest.raises(CheckFailedError, match="it certifies a sample that is broken"):
        checked(linear, tmp_path, "crown", LinearCertifier.make)


def test_absent_is_a_notice(linear, tmp_path, monkeypatch):
    monkeypatch.setattr(lirpa, "notice", lambda: "auto_LiRPA is absent: `make lirpa`")
    run = checked(linear, tmp_path, "crown", LinearCertifier.make)
    assert run.cross_check.compared == ()
    assert run.cross_check.notices == ("auto_LiRPA is absent: `make lirpa`",)


def test_its_failure_is_a_notice(linear, tmp_path, monkeypatch):
    def fail(*_):
        raise NotImplementedError("no such\noperator")

    monkeypatch.setattr(lirpa, "notice", lambda: None)
    monkeypatch.setattr(lirpa, "bounds", fail)
    run = checked(linear, tmp_path, "crown", LinearCertifier.make)
    (notice,) = run.cross_check.notices
    assert "auto_LiRPA failed (NotImplementedError: no such operator)" in notice
