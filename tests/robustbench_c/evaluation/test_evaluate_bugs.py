"""Planted bugs: an attack that cheats, a driver that looks at the wrong class."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from attacks.registry import KINDS
from leaderboards.store import RunStore
from leaderboards.summary import summarise
from robustbench_c.errors import CheckFailedError
from robustbench_c.evaluation import attacking, steps
from robustbench_c.evaluation.verify import verify

PGD = KINDS["pgd"]


@pytest.fixture
def cheat(monkeypatch):
    """Replace what PGD found by something else."""

    def plant(change):
        def pgd(classifier, x, y, *rest, **options):
            result = PGD.run(classifier, x, y, *rest, **options)
            return dataclasses.replace(result, **change(result, x))

        planted = dataclasses.replace(PGD, run=pgd)
        monkeypatch.setattr(attacking, "kind_of", lambda config: planted)

    return plant


def beyond_eps(result, x):
    """By one bit of one feature."""
    far = result.adversarial.clone()
    row = int(result.found.nonzero()[0])
    corner = (x[row].double() + 0.05).float()
    far[row, 0] = torch.nextafter(torch.nextafter(corner, corner + 1), corner + 1)[0]
    return {"adversarial": far}


def outside_of_the_box(result, x):
    """Within eps, but below 0."""
    far = result.adversarial.clone()
    row = int(result.found.nonzero()[0])
    x[row, 3], far[row, 3] = 0.0, -1e-6
    return {"adversarial": far}


def not_a_number(result, x):
    return {"adversarial": torch.where(result.found[:, None], torch.nan, result.adversarial)}


@pytest.mark.parametrize("change", [beyond_eps, outside_of_the_box, not_a_number])
def test_example_outside_of_the_threat_model_stops_the_run(linear, tmp_path, cheat, change):
    cheat(change)
    with pytest.raises(CheckFailedError, match=r"sample \d+ is not legal.*a defect") as stopped:
        linear.evaluate(tmp_path, save_adversarial=True)
    assert stopped.value.exit_code == 7
    (folder,) = tmp_path.iterdir()
    summary = summarise(RunStore.open(folder))
    assert (summary.counts.broken, summary.counts.not_run) == (0, 55)
    assert not (folder / "summary.json").exists()
    assert not list(folder.rglob("*.safetensors"))


def test_immutable_feature_that_moved_stops_the_run(linear, tmp_path, cheat):
    from attacks.pgd import PGDConfig
    from robustbench_c import evaluate

    def move(result, x):
        moved = result.adversarial.clone()
        moved[result.found, 2] += 1e-4
        return {"adversarial": moved}

    fixed = torch.arange(12) == 2
    threat = dataclasses.replace(linear.threat(), immutable=fixed)
    cheat(move)
    with pytest.raises(CheckFailedError, match="not legal"):
        evaluate(
            linear.model,
            linear.x,
            linear.y,
            threat,
            attack=PGDConfig(steps=10, restarts=1),
            out=tmp_path,
            device="cpu",
            diagnose=False,
        )


def test_rightly_classified_example_does_not_count(linear, tmp_path, cheat, rows):
    cheat(lambda result, x: {"adversarial": x.clone()})
    run = linear.evaluate(tmp_path, save_adversarial=True)
    assert run.summary.counts.broken == 0
    assert run.summary.robust_accuracy == run.summary.clean_accuracy
    assert rows(run)["detail"].str.startswith("not reproduced").sum() > 5
    assert verify(run.store, linear.model, attacked(linear)).problems == ()


def attacked(problem):
    from robustbench_c.data import from_tensors

    return from_tensors(problem.x, problem.y)


def test_shifted_labels_in_the_driver_are_noticed(linear, tmp_path, monkeypatch):
    """The verdicts are then not those of the closed form, and the stored run does not verify."""
    real = steps.recheck

    def shifted(classifier, precise, x, adversarial, y, threat):
        return real(classifier, precise, x, adversarial, (y + 1) % 3, threat)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "recheck", shifted)
        run = linear.evaluate(tmp_path, save_adversarial=True)
    true = int(((linear.margins(linear.eps) < 0) & (linear.margins(0.0) > 0)).sum())
    assert run.summary.counts.broken != true
    problems = verify(run.store, linear.model, attacked(linear)).problems
    assert any("has another margin" in line for line in problems)


def test_shifted_labels_in_the_clean_step_are_noticed(linear, tmp_path, monkeypatch):
    real = steps.clean_rows
    with monkeypatch.context() as patch:
        patch.setattr(
            "robustbench_c.evaluation.run.clean_rows",
            lambda logits, y, *rest: real(logits, (y + 1) % 3, *rest),
        )
        run = linear.evaluate(tmp_path)
    problems = verify(run.store, linear.model, attacked(linear)).problems
    assert any("has the label" in line for line in problems)


def test_projection_dropped_is_noticed(linear, tmp_path, monkeypatch):
    from attacks.balls import Ball

    monkeypatch.setattr(
        Ball, "step", lambda self, now, gradient, size: now + size * gradient.sign()
    )
    with pytest.raises(CheckFailedError, match="not legal"):
        linear.evaluate(tmp_path)


def test_examples_that_hold_by_rounding_alone_do_not_count(linear, tmp_path, monkeypatch, rows):
    """A margin that is negative in float32 and not in float64 leaves a sample undecided."""
    monkeypatch.setattr(attacking, "_misses", lambda _, x, y: torch.zeros_like(y, dtype=torch.bool))
    run = linear.evaluate(tmp_path)
    assert run.summary.counts.broken == 0
    details = rows(run)["detail"]
    assert (details == "rounding: misclassified in float32, not in float64").any()
    assert (rows(run)["restart"].isna()).all()
    assert (rows(run)["forwards"][details.notna()] > 2).all()  # the search went on
    assert run.store.verify_bytes() == []
