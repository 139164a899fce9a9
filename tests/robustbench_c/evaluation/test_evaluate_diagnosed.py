"""Diagnostics of a run: the same in any order and batch size, and void where there is a proof."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from toy_certifiers import LinearCertifier

import robustbench_c
from attacks.sigma_zero import SigmaZeroConfig
from attacks.suites import AUTO
from attacks.threat import ThreatModel
from leaderboards.diagnostics import read_diagnostics
from leaderboards.errors import RecordError
from leaderboards.store import RunStore
from robustbench_c.data import from_tensors
from robustbench_c.evaluation import diagnosing
from robustbench_c.evaluation.certifying import CertifyConfig
from robustbench_c.evaluation.verify import verify


class Hidden(nn.Linear):
    """A linear model without a gradient; still one by its weights, for a prover."""

    def forward(self, x):
        return super().forward(x.detach() + 0 * x)


@pytest.fixture
def hidden(linear):
    """At an eps where some of the samples are robust."""
    model = Hidden(12, 3).eval()
    model.load_state_dict(linear.model.state_dict())
    return replace(linear, model=model, eps=0.02)


def test_neither_order_nor_batch_size_matters(hidden, tmp_path):
    one = hidden.evaluate(tmp_path / "one", diagnose=True)
    data = from_tensors(hidden.x, hidden.y).subset(torch.randperm(60).tolist())
    shuffled = replace(hidden, x=data, y=None)
    other = shuffled.evaluate(tmp_path / "other", diagnose=True, batch_size=32)
    first, second = (read_diagnostics(run.store) for run in (one, other))
    assert first.measured == second.measured
    assert first.looked_at == second.looked_at == tuple(range(5, 60))
    assert "black-box-beats-white-box" in {flag.name for flag in one.summary.flags}


def test_a_flag_is_void_where_there_is_a_proof(hidden, tmp_path):
    attacked = hidden.evaluate(tmp_path / "attacked", diagnose=True)
    proved = hidden.evaluate(
        tmp_path / "proved",
        diagnose=True,
        certify=CertifyConfig("complete"),
        certifier=LinearCertifier.make,
    )
    (first,) = [f for f in attacked.summary.flags if f.name == "zero-gradient"]
    assert first.samples == attacked.summary.counts.undecided
    assert first.value == 1.0
    assert proved.summary.counts.certified > 5
    assert proved.summary.counts.undecided == 0
    assert (proved.summary.flags, proved.summary.reliable) == ((), True)


class Misled(nn.Linear):
    """A linear model whose gradient points the wrong way in some features."""

    def forward(self, x):
        wrong = torch.arange(x.shape[1]) % 5 < 2
        return super().forward(torch.where(wrong, 2 * x.detach() - x, x))


def test_breaks_without_gradients_refute_no_sign_that_gradients_fail(linear, tmp_path):
    """The suite that most is asked of: what its Square finds is no excuse for the rest."""
    model = Misled(12, 3).eval()
    model.load_state_dict(linear.model.state_dict())
    misled = replace(linear, model=model, eps=0.05)
    run = misled.evaluate(tmp_path, attack=AUTO, diagnose=True)
    broken = {step.name: step.broken for step in run.summary.steps}
    assert broken["square"] + broken["square-near"] > 5
    assert run.summary.reliable is False
    assert "black-box-beats-white-box" in {flag.name for flag in run.summary.flags}
    honest = replace(misled, model=linear.model).evaluate(tmp_path, attack=AUTO, diagnose=True)
    assert (honest.summary.flags, honest.summary.reliable) == ((), True)


def test_a_run_that_stopped_before_its_diagnostics_goes_on(hidden, tmp_path, monkeypatch):
    def stopped(task):
        raise KeyboardInterrupt

    measure = diagnosing.measure
    monkeypatch.setattr(diagnosing, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        hidden.evaluate(tmp_path, diagnose=True)
    monkeypatch.setattr(diagnosing, "measure", measure)
    run = hidden.evaluate(tmp_path, diagnose=True)
    assert run.summary.reliable is False
    data = from_tensors(hidden.x, hidden.y)
    assert verify(run.store, hidden.model, data).problems == ()
    path = run.folder / "diagnostics.json"
    path.write_text(path.read_text().replace('"limit": 0.1', '"limit": 1.0'))
    with pytest.raises(RecordError, match="zero-gradient is about the sample and has limit"):
        RunStore.open(run.folder).summary()


def test_records_of_the_first_probes_are_verified_by_these(hidden, tmp_path, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(diagnosing, "measure", partial(diagnosing.measure, probes=1))
        run = hidden.evaluate(tmp_path, diagnose=True)
    path = run.folder / "diagnostics.json"
    meanings = {sign.name: sign.meaning for sign in read_diagnostics(run.store).measured}
    assert meanings["loss-stands-still"] == "ten steps of PGD do not lower the margin"
    data = from_tensors(hidden.x, hidden.y)
    assert verify(run.store, hidden.model, data).problems == ()
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    run.store.write_summary()
    assert "loss-stands-still" in str(verify(run.store, hidden.model, data).problems)


def test_another_machine_has_to_raise_the_same_flags(hidden, tmp_path, monkeypatch):
    run = hidden.evaluate(tmp_path, diagnose=True)
    monkeypatch.setattr("robustbench_c.evaluation.verify.same_machine", lambda *_: False)
    data, path = from_tensors(hidden.x, hidden.y), run.folder / "diagnostics.json"
    honest = read_diagnostics(run.store)
    for held, said in ((5, ()), (0, ("zero-gradient is not what the model gives",))):
        changed = [
            sign.model_copy(
                update={
                    "held": sign.held[held:] if held else (),
                    "value": (len(sign.held) - held if held else 0) / len(honest.looked_at),
                }
            )
            if sign.name == "zero-gradient"
            else sign
            for sign in honest.measured
        ]
        path.write_bytes(honest.model_copy(update={"measured": tuple(changed)}).to_bytes())
        run.store.write_summary()
        problems = verify(run.store, hidden.model, data).problems
        assert tuple(p.removeprefix("diagnostics: ") for p in problems) == said


def test_l0_has_no_diagnostics(linear, tmp_path):
    at_l0 = {"attack": SigmaZeroConfig(steps=12), "threat": ThreatModel.box("l0", 2.0)}

    run = robustbench_c.evaluate(
        linear.model, linear.x, linear.y, **at_l0, out=tmp_path, device="cpu", diagnose=True
    )
    assert run.summary.reliable is None
