"""The closing attacks of a suite run on the samples alone that came near to breaking."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

import robustbench_c
from attacks.apgd import APGDConfig
from attacks.ddn import DDNConfig
from attacks.square import SquareConfig
from attacks.suites import AUTO, Suite
from attacks.threat import ThreatModel
from leaderboards.near import is_near, near_before
from leaderboards.store import RunStore
from leaderboards.verdicts import Verdict
from robustbench_c.data import from_tensors
from robustbench_c.errors import UsageError
from robustbench_c.evaluation import sharing
from robustbench_c.evaluation.budgets import AttackBudget
from robustbench_c.evaluation.protocol_steps import attack_of, attack_step, protocol_steps
from robustbench_c.evaluation.verify import verify

WEAK = APGDConfig(steps=2, loss="margin")
NEAR = 0.7
SUITE = Suite(
    "some",
    (("apgd", WEAK),),
    closing=(("square-near", SquareConfig(queries=40)), ("apgd-near", APGDConfig(steps=9))),
    near=NEAR,
)


@pytest.mark.parametrize(
    ("lowest", "clean", "near"),
    [(0.0, 1.0, True), (0.2, 1.0, True), (0.21, 1.0, False), (1.0, 1.0, False), (np.nan, 1.0, 1)],
)
def test_near_is_a_share_of_the_fall(lowest, clean, near):
    assert is_near(np.array([lowest]), np.array([clean]), 0.25).tolist() == [bool(near)]
    assert is_near(torch.tensor([lowest]), torch.tensor([clean]), 0.25).tolist() == [bool(near)]


def test_those_are_attacked_that_were_near(linear, tmp_path):
    run = linear.evaluate(tmp_path, attack=SUITE)
    clean = run.store.read_step("clean").set_index("sample_id")["margin"]
    rows = {name: run.store.read_step(name).set_index("sample_id") for name in run.store.steps}
    lowest = rows["apgd"]["margin"]
    left = rows["apgd"].index[rows["apgd"]["verdict"].isna()]
    wanted = [i for i in left if lowest[i] <= NEAR * (clean[i] - lowest[i])]
    assert 0 < len(wanted) < len(left)
    square = rows["square-near"]
    assert sorted(square.index) == sorted(left)
    assert square.index[square["forwards"] > 0].tolist() == wanted
    far = square[square["forwards"] == 0]
    assert far["detail"].str.startswith("far: ").all()
    assert far["verdict"].isna().all()
    last = rows["apgd-near"]
    assert sorted(last.index) == sorted(square.index[square["verdict"].isna()])
    assert set(last.index[last["forwards"] > 0]) == set(wanted) & set(last.index)
    broke = [(rows[name]["verdict"] == Verdict.BROKEN).sum() for name in run.store.steps[1:]]
    assert min(broke[:2]) > 0
    untried = [step.untried for step in run.summary.steps]
    assert untried == [0, 0, len(far), len(last) - len(set(wanted) & set(last.index))]
    assert run.summary.complete
    assert run.folder.name.startswith("linear-tensors-some-linf-0.05-")  # named by the suite
    assert run.store.manifest.protocol.steps[1].parameters["near"] == NEAR
    assert not any("near" in step.parameters for step in run.store.manifest.protocol.steps[:1])
    data, path = from_tensors(linear.x, linear.y), run.folder / "summary.json"
    assert verify(run.store, linear.model, data).problems == ()
    written = json.loads(path.read_text())
    for step in written["steps"]:
        del step["untried"]  # as summaries were before
    path.write_text(json.dumps(written))
    assert verify(run.store, linear.model, data).problems == ()


def test_a_sample_whose_budget_is_spent_is_not_called_far(linear, tmp_path):
    parts = (*SUITE.parts, ("square", SquareConfig(queries=20)))
    suite = Suite("more", parts, closing=SUITE.closing, near=NEAR)
    run = linear.evaluate(tmp_path, attack=suite, budget=AttackBudget(12))
    said = {name: run.store.read_step(name) for name in ("square", "square-near", "apgd-near")}
    closing = pd.concat([said["square-near"], said["apgd-near"]])
    assert len(closing) > 0
    assert set(closing["detail"]) == {"budget: no query was left for it"}
    near = near_before(run.store, run.store.manifest.protocol.steps[2])
    assert not closing["sample_id"].isin(near).all()  # or none could have been called far
    assert run.store.verify_bytes() == []
    wide = linear.evaluate(tmp_path, attack=suite, budget=AttackBudget(24)).store
    rows = wide.read_step("square-near")
    assert set(rows.loc[rows["detail"].notna(), "detail"]) == {
        "far: no attack came near to break it"
    }
    assert wide.verify_bytes() == []


def test_verdicts_hang_on_nothing_else(linear, tmp_path, hashes, monkeypatch):
    whole = linear.evaluate(tmp_path / "a", attack=SUITE)
    monkeypatch.setattr(sharing, "MOST", 7)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(5)).tolist()
    data = from_tensors(linear.x, linear.y)
    for samples in (data.subset(order), data.subset(order[:23])):
        run = robustbench_c.evaluate(
            linear.model,
            samples,
            threat=linear.threat(),
            attack=SUITE,
            device="cpu",
            out=tmp_path / str(len(samples)),
            diagnose=False,
        )
        if len(samples) == 60:
            assert hashes(run) == hashes(whole)
        assert whole.verdicts.loc[run.verdicts.index].equals(run.verdicts)


def test_auto_closes_in_with_other_kinds(linear):
    steps = protocol_steps(AUTO, None, linear.threat())
    assert [step.name for step in steps] == [n for n, _ in (*AUTO.parts, *AUTO.closing)]
    assert [step.parameters.get("near") for step in steps] == [None] * 3 + [AUTO.near] * 2
    assert [attack_of(step) for step in steps] == [c for _, c in (*AUTO.parts, *AUTO.closing)]
    assert "near" not in attack_step("apgd", WEAK, linear.threat()).parameters


def test_they_have_to_fit_the_norm(linear):
    suite = Suite("some", (("apgd", WEAK),), closing=(("ddn-near", DDNConfig()),))
    with pytest.raises(UsageError, match="the attack ddn-near is for l2, not for linf"):
        protocol_steps(suite, None, linear.threat())


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (0.01, "looked at, but no attack before came near to break it"),
        (3.0, "not looked at, but an attack before came near"),
        ("some", "says 'some' of how near samples are: no number"),
    ],
)
def test_a_record_that_left_out_others_is_found_out(linear, tmp_path, share, told):
    run = linear.evaluate(tmp_path, attack=SUITE)
    steps = list(run.store.manifest.protocol.steps)
    steps[1] = steps[1].model_copy(update={"parameters": steps[1].parameters | {"near": share}})
    protocol = run.store.manifest.protocol.model_copy(update={"steps": tuple(steps)})
    manifest = run.store.manifest.model_copy(update={"protocol": protocol})
    problems = RunStore(run.store.folder, manifest).verify_bytes()
    assert any(told in problem for problem in problems), problems


@pytest.mark.parametrize(("norm", "version"), [("linf", 1), ("l2", 2), ("l1", 2)])
def test_an_attack_that_changed_is_another(norm, version):
    step = attack_step("square", SquareConfig(), ThreatModel.box(norm, 0.1))
    assert step.version == version
