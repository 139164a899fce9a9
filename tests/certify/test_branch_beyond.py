"""Where branch and bound is not complete: other balls, other calls. It has to stay sound."""

from __future__ import annotations

import pytest
import torch
from exact_nets import exact_minimum, random_case
from torch import Tensor, nn

from attacks.balls import Ball
from attacks.threat import Norm, ThreatModel
from certify.alpha import alpha_bounds, refine
from certify.ball import InputSet
from certify.bind import bind_model
from certify.branch import branch_and_bound
from certify.crown import analyse, output_bounds
from certify.interval import as_interval
from certify.linear import Analysis
from certify.result import Outcome
from certify.search import Budget
from certify.specification import margins
from certify.trace import trace_model


class Curved(nn.Module):
    """ReLUs beside calls that have lines, steps, or neither."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(16, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(torch.relu(self.first(x)), 2)
        x = torch.relu(self.second(x.flatten(1)))
        return self.last(x * torch.sigmoid(x))


def _known(seed: int, samples: int = 3) -> tuple[Analysis, object]:
    case = random_case(seed, samples=samples)
    program = bind_model(case.net, trace_model(case.net, case.x))
    return analyse(program, InputSet.around(case.x, case.threat), tighten=True), case


def test_alpha_is_never_below_crown_and_mostly_above() -> None:
    raised = 0
    for seed in range(8):
        known, case = _known(seed)
        spec = case.specification  # type: ignore[attr-defined]
        crown = output_bounds(known, spec)
        with torch.no_grad():
            alpha = alpha_bounds(known, spec)
        assert (alpha >= crown).all()
        assert torch.equal(alpha[crown > 0], crown[crown > 0])
        for i in range(3):
            assert alpha[i].amin() <= exact_minimum(case, i) + 1e-9  # type: ignore[arg-type]
        raised += int((alpha > crown + 1e-4).sum())
    assert raised >= 5


def test_alpha_of_a_batch_is_that_of_each_sample() -> None:
    known, case = _known(2, samples=5)
    spec = case.specification  # type: ignore[attr-defined]
    program = known.program
    with torch.no_grad():
        together = alpha_bounds(known, spec)
        for i in range(5):
            inputs = InputSet.around(case.x[i : i + 1], case.threat)  # type: ignore[attr-defined]
            one = type(spec)(spec.coefficients[i : i + 1], spec.offset[i : i + 1], spec.clause)
            alone = alpha_bounds(analyse(program, inputs, tighten=True), one)
            torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)


def test_refined_intervals_hold_values_and_are_no_wider() -> None:
    known, case = _known(2)
    with torch.no_grad():
        finer = refine(known, steps=10)
    inputs = known.inputs.box
    narrower = 0
    for _ in range(20):
        x = inputs.lower + torch.rand_like(inputs.lower) * (inputs.upper - inputs.lower)
        h = x
        for node, layer in zip(known.program.nodes, case.net.steps, strict=True):  # type: ignore[attr-defined]
            h = layer(h)
            box = as_interval(finer.values[node.index])
            old = as_interval(known.values[node.index])
            assert (box.lower >= old.lower).all()
            assert (box.upper <= old.upper).all()
            narrower += int((box.upper < old.upper).sum())
            assert (box.lower <= h).all()
            assert (h <= box.upper).all()
    assert narrower


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_sound_where_it_is_not_complete(norm: Norm) -> None:
    torch.manual_seed(0)
    net = Curved().eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.mul_(2)
    x = torch.rand(6, 1, 4, 4)
    y = net(x).argmax(1)
    eps = {"linf": 0.05, "l2": 0.15, "l1": 0.3}[norm]
    threat = ThreatModel.box(norm, eps)
    ball = Ball.around(threat, x)
    found = branch_and_bound(
        bind_model(net, trace_model(net, x)),
        InputSet.around(x, threat),
        margins(y, 3),
        net,
        ball,
        Budget(30),
    )
    assert Outcome.ERROR not in found.outcome, found.detail
    generator = torch.Generator().manual_seed(1)
    for _ in range(200):
        near = ball.start(torch.randint(2**62, (6,), generator=generator))
        rows = margins(y, 3).coefficients @ net(near)[:, :, None]
        least = rows[:, :, 0].amin(1).double()
        assert (found.lower <= least).all()
    assert Outcome.CERTIFIED in found.outcome
    assert found.candidates is not None
    for i, outcome in enumerate(found.outcome):
        if outcome is Outcome.FALSIFIED:
            assert net(found.candidates[i : i + 1]).argmax() != y[i]
