"""Models that have fooled an evaluation: they are judged as what they compute, or refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from attacks.errors import ClassifierError
from attacks.pgd import PGDConfig
from robustbench_c.evaluation.verify import verify


class Around(nn.Module):
    """A linear model with something done to its input first."""

    def __init__(self, linear: nn.Linear, before) -> None:
        super().__init__()
        self.linear, self.before = linear, before

    def forward(self, x):
        return self.linear(self.before(x))


def around(problem, before):
    return problem.with_model(Around(problem.model, before).eval())


def test_a_model_may_write_on_its_input(linear, tmp_path):
    def inplace(x):
        return x.clamp_(0.35, 0.65)

    own = linear.x.clone()
    written = around(linear, inplace).evaluate(tmp_path / "a")
    assert torch.equal(linear.x, own)
    plain = around(linear, lambda x: x.clamp(0.35, 0.65)).evaluate(tmp_path / "b")
    assert written.summary.counts == plain.summary.counts


@pytest.mark.parametrize(
    "before",
    [lambda x: x - 0.005 * x.mean(0), lambda x: x / x.amax(0)],
)
def test_a_model_that_looks_at_its_batch_is_refused(linear, tmp_path, before):
    with pytest.raises(ClassifierError, match="other samples of its batch"):
        around(linear, before).evaluate(tmp_path)


def test_a_gradient_that_is_nan_is_an_error_and_not_robust(linear, tmp_path):
    run = around(linear, lambda x: x + 0 * torch.sqrt(x * 0)).evaluate(tmp_path)
    assert run.summary.counts.undecided == 0
    assert run.summary.counts.error > 0


def test_a_gradient_that_is_zero_is_said(linear, tmp_path, rows):
    run = around(linear, lambda x: torch.round(x * 20) / 20 + 0 * x).evaluate(tmp_path)
    details = rows(run)["detail"]
    assert details[rows(run)["verdict"].isna()].str.startswith("zero gradient").all()


def test_a_tie_that_is_lost_is_broken_as_it_is_wrong(linear, tmp_path):
    """The first of equal logits is predicted: class 0 wins every tie."""

    class Tie(nn.Module):
        def forward(self, x):
            gap = (x.sum(1, keepdim=True) - 6.0).clamp_min(0)
            return torch.cat([0 * gap, gap], 1)

    x = torch.full((40, 12), 0.501)
    problem = dataclasses.replace(linear, model=Tie().eval(), x=x, y=torch.ones(40).long())
    run = problem.evaluate(tmp_path, attack=PGDConfig(steps=5, restarts=1))
    assert run.summary.counts.broken == 40
    assert not verify(run.store, problem.model, _data(problem)).problems


def test_a_model_without_float64_form_verifies(linear, tmp_path):
    problem = around(linear, lambda x: x.float())
    run = problem.evaluate(tmp_path)
    assert run.summary.counts.broken > 0
    assert run.store.verify_bytes() == []


def _data(problem):
    from robustbench_c.data import from_tensors

    return from_tensors(problem.x, problem.y)


@pytest.mark.parametrize("options", [{"input": True}, {"autocast": True}])
def test_convolutions_may_be_called_in_any_way(tmp_path, options):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 4, 2, 1)

        def forward(self, x):
            if "input" in options:
                z = torch.conv2d(input=x, weight=self.conv.weight, stride=2)
            else:
                with torch.autocast("cpu", torch.bfloat16):
                    z = self.conv(x)
            return z.float().flatten(2).mean(2)

    import robustbench_c
    from attacks.threat import ThreatModel

    model = Odd().eval()
    x = torch.rand(8, 1, 8, 8)
    y = model(x).argmax(1)
    run = robustbench_c.evaluate(
        model,
        x,
        y,
        ThreatModel.box("linf", 0.01),
        attack=PGDConfig(steps=2),
        out=tmp_path,
        diagnose=False,
    )
    assert run.summary.complete
