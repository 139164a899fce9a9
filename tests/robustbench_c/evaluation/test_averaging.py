"""Random models by their mean over keyed draws: a subject of its own, judged on other draws."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import robustbench_c
from attacks.classifier import TiledClassifier
from attacks.eot import Expectation, held_by
from attacks.errors import ClassifierError
from attacks.pgd import PGDConfig
from leaderboards.draws import OTHER
from robustbench_c.errors import ModelError, UsageError
from robustbench_c.evaluation import artefacts
from robustbench_c.evaluation.averaging import averaged
from robustbench_c.evaluation.certifying import CertifyConfig
from robustbench_c.evaluation.subject import subject
from robustbench_c.evaluation.verify import verify

ATTACK = PGDConfig(steps=6, restarts=1, loss="margin")


class Noisy(nn.Module):
    """A linear model behind a noise layer and a dropout that is always on."""

    def __init__(self, linear: nn.Module, noise: float = 0.15) -> None:
        super().__init__()
        self.linear, self.noise = linear, noise

    def forward(self, x):
        x = x + self.noise * torch.randn(x.shape, device=x.device)
        return self.linear(nn.functional.dropout(x, 0.1, training=True))


@pytest.fixture
def noisy(linear):
    return linear.with_model(Noisy(linear.model).eval())


@pytest.fixture
def evaluate(noisy, tmp_path):
    def run(draws=4, seed=0, out="runs", **options):
        problem = noisy.with_model(averaged(subject(noisy.model), draws, seed))
        options = {"attack": ATTACK, "seed": seed, "save_adversarial": True, **options}
        return problem.evaluate(tmp_path / out, **options)

    return run


def test_without_draws_a_random_model_is_refused(noisy, tmp_path):
    with pytest.raises(ClassifierError, match=r"output is random.*--eot"):
        noisy.evaluate(tmp_path)


def test_the_draws_are_part_of_what_is_evaluated(evaluate, noisy):
    run = evaluate()
    model = run.store.manifest.model
    assert model.draws.count == 4
    assert model.draws.base_sha256 == subject(noisy.model).sha256
    assert model.draws.seed != model.draws.other_seed
    hashes = {model.sha256, subject(noisy.model).sha256}
    for other in (averaged(subject(noisy.model), 5), averaged(subject(noisy.model), 4, 1)):
        hashes.add(other.sha256)
    assert len(hashes) == 4


def test_what_holds_on_other_draws_is_counted(evaluate, noisy):
    run = evaluate()
    draws, store = run.store.manifest.model.draws, run.store
    judge = TiledClassifier(Expectation(noisy.model, draws.count, draws.other_seed))
    clean, rows = store.read_step("clean"), store.read_step("pgd").set_index("sample_id")
    right = judge.logits(noisy.x).argmax(1) == noisy.y
    found = run.summary.other_draws
    assert found.count == 4
    assert found.clean_accuracy.k == int(right.sum())
    assert not (clean[OTHER] == clean["margin"]).any()
    (examples,) = artefacts.read(store, "pgd")
    held = held_by(judge)(examples.adversarial, noisy.y[examples.ids])
    assert 0 < int(held.sum()) < len(held), "some are fitted to the draws, some are not"
    assert (found.held.k, found.held.n) == (int(held.sum()), len(held))
    assert ((rows[OTHER][examples.ids.tolist()] < 0).to_numpy() == held.numpy()).all()
    assert rows[OTHER][rows["verdict"].isna()].isna().all()
    assert store.verify_bytes() == []


def test_batches_order_and_resumes_change_nothing(evaluate, noisy, hashes, small_shards, tmp_path):
    whole = evaluate()
    again = evaluate(out="other", batch_size=32)
    assert hashes(again) == hashes(whole)
    next((again.folder / "shards" / "pgd").iterdir()).unlink()
    resumed = evaluate(out="other")
    assert resumed.resumed
    assert hashes(resumed) == hashes(whole)
    assert hashes(evaluate(seed=1)) != hashes(whole)


def test_a_check_uses_the_same_draws(evaluate, noisy, monkeypatch):
    run = evaluate()
    data = robustbench_c.data.from_tensors(noisy.x, noisy.y)
    result = verify(run.store, noisy.model, data)
    assert result.problems == ()
    assert result.replayed == result.broken > 0
    with pytest.raises(ModelError, match="give the model that was evaluated"):
        verify(run.store, Noisy(noisy.model.linear, 0.2).eval(), data)
    monkeypatch.setattr("robustbench_c.evaluation.averaging.Expectation", Shifted)
    problems = verify(run.store, noisy.model, data).problems
    assert any("clean sample" in problem for problem in problems)
    assert any("another margin on other draws" in problem for problem in problems)


class Shifted(Expectation):
    """Draws of another seed than it says."""

    def __init__(self, module, draws, seed) -> None:
        super().__init__(module, draws, seed + 1)


def test_a_model_that_is_not_random_is_told_so(linear, tmp_path):
    mean = averaged(subject(linear.model), 2)
    run = linear.with_model(mean).evaluate(tmp_path, attack=ATTACK)
    assert any("not random" in notice for notice in run.store.manifest.notices)
    held = run.summary.other_draws.held
    assert held.k == held.n > 0


def test_what_a_mean_does_not_have(noisy, tmp_path):
    mean = averaged(subject(noisy.model), 2)
    with pytest.raises(UsageError, match="no proof"):
        noisy.with_model(mean).evaluate(tmp_path, certify=CertifyConfig("ibp"))
    for draws in (0, 10_001):
        with pytest.raises(UsageError, match="over 1 to 10000"):
            averaged(subject(noisy.model), draws)
