"""Budgets of a run's attacks hold over all of its steps, and the books show what was spent."""

from __future__ import annotations

import pytest
import torch

import robustbench_c
from attacks.apgd import APGDConfig
from attacks.fmn import FMNConfig
from attacks.foolbox_config import FoolboxConfig
from attacks.halving import HalvingConfig
from attacks.pgd import PGDConfig
from attacks.square import SquareConfig
from attacks.suites import Suite
from leaderboards.store import RunStore
from leaderboards.summary import Summary
from robustbench_c.data import from_tensors
from robustbench_c.errors import RunError, UsageError
from robustbench_c.evaluation import budgets, sharing
from robustbench_c.evaluation.budgets import AttackBudget
from robustbench_c.evaluation.certifying import CertifyConfig
from robustbench_c.evaluation.protocol_steps import attack_step, protocol_steps
from robustbench_c.evaluation.verify import verify

SUITE = Suite(
    "some",
    (
        ("apgd", APGDConfig(steps=5, loss="margin")),
        ("apgd-halving", HalvingConfig(steps=2)),
        ("square", SquareConfig(queries=30)),
        ("foolbox-pgd", FoolboxConfig("LinfPGD", {"steps": 20})),
    ),
)


def forwards(run) -> dict[int, int]:
    spent: dict[int, int] = {}
    for step in run.store.steps[1:]:
        rows = run.store.read_step(step)
        for sample, passes in zip(rows["sample_id"], rows["forwards"], strict=True):
            spent[sample] = spent.get(sample, 0) + passes
    return spent


@pytest.mark.parametrize("most", [1, 7, 20, 50])
def test_a_suite_has_one_budget(linear, tmp_path, most):
    run = linear.evaluate(tmp_path, attack=SUITE, budget=AttackBudget(most))
    spent = forwards(run)
    assert max(spent.values()) == most
    assert run.summary.complete
    assert run.store.manifest.reproducible
    assert run.store.verify_bytes() == []
    left = run.store.read_step("foolbox-pgd").set_index("sample_id")
    if most < 50:  # 6 + 14 + 30 passes come before it
        assert (left["forwards"] == 0).all()
        assert (left["detail"] == "budget: no query was left for it").all()
        assert (left["margin"] >= 0).all()


def test_verdicts_hang_on_nothing_else(linear, tmp_path, hashes, monkeypatch):
    budget = AttackBudget(17)
    whole = linear.evaluate(tmp_path / "a", attack=SUITE, budget=budget)
    monkeypatch.setattr(sharing, "MOST", 7)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(5)).tolist()
    data = from_tensors(linear.x, linear.y)
    for samples, batch in ((data.subset(order), 32), (data.subset(order[:23]), 64)):
        run = _evaluate(linear, samples, tmp_path / str(batch), budget, batch)
        if len(samples) == 60:
            assert hashes(run) == hashes(whole)
        shared = run.verdicts.index
        assert whole.verdicts.loc[shared].equals(run.verdicts)


def _evaluate(linear, samples, out, budget, batch):
    return robustbench_c.evaluate(
        linear.model,
        samples,
        threat=linear.threat(),
        attack=SUITE,
        budget=budget,
        batch_size=batch,
        device="cpu",
        out=out,
        diagnose=False,
    )


def test_a_budget_is_part_of_the_protocol_and_none_is_not(linear, tmp_path):
    free, wide, narrow = (
        linear.evaluate(tmp_path, budget=budget).store.manifest.protocol
        for budget in (AttackBudget(), AttackBudget(1000), AttackBudget(5))
    )
    assert len({free.sha256, wide.sha256, narrow.sha256}) == 3
    assert "max_queries" not in free.steps[0].parameters
    assert narrow.steps[0].parameters["max_queries"] == 5


def test_the_cascade_shares_it(linear):
    steps = protocol_steps(
        PGDConfig(), CertifyConfig("cascade"), linear.threat(), AttackBudget(9, 2.0)
    )
    attacks = [step for step in steps if step.kind == "attack"]
    assert [step.name for step in attacks] == ["pgd-quick", "pgd"]
    assert all(step.parameters["max_queries"] == 9 for step in attacks)
    assert "max_queries" not in attack_step("pgd", PGDConfig(), linear.threat()).parameters


def test_a_resumed_run_ends_where_it_would_have(linear, tmp_path, hashes, monkeypatch):
    budget = AttackBudget(17)
    whole = linear.evaluate(tmp_path / "a", attack=SUITE, budget=budget)
    monkeypatch.setattr(sharing, "MOST", 7)
    write, left = RunStore.write_shard, iter(range(9))

    def stops(store, step, rows, *more):
        if next(left, None) is None:
            raise RunError("stopped")
        return write(store, step, rows, *more)

    monkeypatch.setattr(RunStore, "write_shard", stops)
    with pytest.raises(RunError, match="stopped"):
        linear.evaluate(tmp_path / "b", attack=SUITE, budget=budget)
    monkeypatch.setattr(RunStore, "write_shard", write)
    run = linear.evaluate(tmp_path / "b", attack=SUITE, budget=budget)
    assert run.resumed
    assert hashes(run) == hashes(whole)


def test_time_that_is_over_leaves_samples_open_and_says_so(linear, tmp_path, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr("attacks.problem.time.perf_counter", lambda: float(next(clock)))
    run = linear.evaluate(tmp_path, attack=SUITE, budget=AttackBudget(seconds=40.0))
    assert run.summary.complete
    assert not run.store.manifest.reproducible
    rows = run.store.read_step("foolbox-pgd")
    assert len(rows)
    assert rows["verdict"].isna().all()
    assert (rows["detail"] == "timeout: the time for attacks was over first").all()
    assert run.store.verify_bytes() == []
    assert run.summary.counts.undecided >= len(rows)


def test_the_books(linear, tmp_path):
    run = linear.evaluate(tmp_path, attack=SUITE)
    steps = {step.name: step for step in run.summary.steps}
    assert [steps[name].knowledge for name, _ in SUITE.parts] == [
        "white-box", "white-box", "score", "white-box"
    ]  # fmt: skip
    assert steps["clean"].knowledge is None
    assert steps["clean"].queries is None
    square = steps["square"]
    assert square.queries == square.forwards > 0
    assert square.backwards == 0
    rows = run.store.read_step("apgd")
    assert steps["apgd"].queries == int((rows["forwards"] - rows["backwards"]).sum()) == len(rows)


def test_pgd_says_what_it_needs_as_well(linear, tmp_path):
    """Its records are older than that setting."""
    assert linear.evaluate(tmp_path).summary.steps[1].knowledge == "white-box"


def test_older_summaries_are_read_and_verified(linear, tmp_path):
    run = linear.evaluate(tmp_path)
    path = run.folder / "summary.json"
    old = run.summary.model_dump(mode="json")
    for step in old["steps"]:
        del step["queries"], step["knowledge"]
    path.write_text(Summary.model_validate(old, strict=False).model_dump_json(exclude_unset=True))
    assert RunStore.open(run.folder).verify_bytes() == []
    old["steps"][1]["queries"] = 3
    path.write_text(Summary.model_validate(old, strict=False).model_dump_json(exclude_unset=True))
    assert "steps is not what the shards give" in RunStore.open(run.folder).verify_bytes()[0]


@pytest.mark.parametrize(
    ("attack", "most"),
    [(FMNConfig(steps=3), 4), (SquareConfig(queries=5), 5), (HalvingConfig(steps=1), 18)],
    ids=str,
)
def test_more_passes_than_an_attack_has_are_seen(linear, tmp_path, attack, most, monkeypatch):
    """Of attacks that have no steps or restarts as well."""
    data = from_tensors(linear.x, linear.y)
    run = linear.evaluate(tmp_path, attack=attack)
    assert verify(run.store, linear.model, data).problems == ()
    read = RunStore.read_step

    def more(store, step):
        rows = read(store, step)
        return rows.assign(forwards=most + 1) if step != "clean" else rows

    monkeypatch.setattr(RunStore, "read_step", more)
    problems = verify(run.store, linear.model, data).problems
    assert any(f"more passes than the {most} of its settings" in text for text in problems)


def test_more_passes_than_the_budget_are_seen(linear, tmp_path, monkeypatch):
    run = linear.evaluate(tmp_path, attack=SUITE, budget=AttackBudget(7))
    read = RunStore.read_step

    def more(store, step):
        rows = read(store, step)
        return rows.assign(forwards=rows["forwards"] + 1) if step == "square" else rows

    monkeypatch.setattr(RunStore, "read_step", more)
    assert any("more passes than the 7 of max_queries" in p for p in run.store.verify_bytes())


@pytest.mark.parametrize("budget", [(0, None), (-1, None), (None, 0.0), (None, float("nan"))])
def test_budgets_that_are_none(budget):
    with pytest.raises(UsageError, match="budget"):
        AttackBudget(*budget)


# planted bugs ------------------------------------------------------------------------------------


def test_a_budget_for_each_part_is_seen(linear, tmp_path, monkeypatch):
    monkeypatch.setattr(budgets, "_attack_rows", lambda store: [])
    with pytest.raises(AssertionError):
        test_a_suite_has_one_budget(linear, tmp_path, 20)
