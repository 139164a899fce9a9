"""Input splitting against the truth, which small piecewise-linear nets show on a fine grid."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attacks.threat import ThreatModel
from certify import input_split
from certify.ball import InputSet
from certify.bind import bind_model
from certify.errors import CertifyError
from certify.input_split import split_inputs
from certify.interval import Interval
from certify.result import Outcome
from certify.search import Budget
from certify.specification import Specification, margins
from certify.trace import trace_model


def net_of(seed: int, inputs: int = 2) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(inputs, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)
    )


def grid(inputs: int) -> torch.Tensor:
    axis = torch.linspace(-1, 1, 201 if inputs == 2 else 41)
    return torch.cartesian_prod(*[axis] * inputs)


def spec_of(rows: list[list[float]], offset: list[float], clause: tuple[int, ...]) -> Specification:
    return Specification(torch.tensor([rows]), torch.tensor([offset]), clause)


def ask(net, specification, *, inputs=2, boxes=20_000, lower=-1.0, upper=1.0, **more):
    program = bind_model(net, trace_model(net, torch.zeros(1, inputs)))
    box = Interval(torch.full((1, inputs), lower), torch.full((1, inputs), upper))
    return split_inputs(program, InputSet(box), specification, net, budget=Budget(boxes), **more)


def least_of_grid(net, inputs, rows, clause):
    values = net(grid(inputs)).detach() @ torch.tensor(rows).T
    spec = Specification(torch.zeros(1), torch.zeros(1), clause)
    return float(spec.per_clause(values).amin(1).amin())


CASES = [
    ([[1.0, -1.0, 0.0]], (0,)),
    ([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]], (0, 1)),  # both have to hold
    ([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]], (0, 0)),  # one of them, and where may differ
]


@pytest.mark.parametrize("inputs", [2, 3])
@pytest.mark.parametrize(("rows", "clause"), CASES)
@pytest.mark.parametrize("seed", range(4))
def test_decides_what_the_grid_shows(seed, rows, clause, inputs):
    net = net_of(seed, inputs)
    least = least_of_grid(net, inputs, rows, clause)
    for shift, expected in ((0.05, Outcome.CERTIFIED), (-0.002, Outcome.FALSIFIED)):
        spec = spec_of(rows, [shift - least] * len(rows), clause)
        found = ask(net, spec, inputs=inputs)
        assert found.outcome == (expected,), found.detail
        if expected is Outcome.FALSIFIED:
            assert (found.candidates.abs() <= 1).all()
            value = net(found.candidates).detach() @ torch.tensor(rows).T + spec.offset
            assert spec.per_clause(value).amin() <= 0
        else:
            assert 0 < found.lower <= 0.05 + 1e-6


def needs_cuts(seed: int = 1):
    """A question that no single bound answers."""
    net = net_of(seed)
    rows, clause = CASES[0]
    return net, spec_of(rows, [0.01 - least_of_grid(net, 2, rows, clause)], clause)


def test_cuts_are_needed_and_repeatable():
    net, spec = needs_cuts()
    found = ask(net, spec)
    assert found.outcome == (Outcome.CERTIFIED,)
    assert found.work > 10
    again = ask(net, spec)
    assert (again.work, again.lower) == (found.work, found.lower)


def test_batches_change_no_outcome(monkeypatch):
    net, spec = needs_cuts()
    monkeypatch.setattr(input_split, "_ENTRIES", 1)
    assert ask(net, spec).outcome == (Outcome.CERTIFIED,)


def test_budgets_end_as_timeout():
    net, spec = needs_cuts()
    found = ask(net, spec, boxes=3)
    assert found.outcome == (Outcome.TIMEOUT,)
    assert "boxes" in found.detail[0]
    program = bind_model(net, trace_model(net, torch.zeros(1, 2)))
    inputs = InputSet(Interval(-torch.ones(1, 2), torch.ones(1, 2)))
    found = split_inputs(program, inputs, spec, net, budget=Budget(10**6, 1e-9))
    assert found.outcome == (Outcome.TIMEOUT,)
    assert "seconds" in found.detail[0]


def test_a_margin_within_rounding_is_rounding():
    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        net[2].weight.fill_(1.0)  # |x|
    spec = spec_of([[1.0]], [-1.0 + 2**-24], (0,))
    found = ask(net, spec, inputs=1, lower=1.0, upper=1.0)
    assert found.outcome == (Outcome.ROUNDING,)


def test_a_boundary_that_is_not_confirmed_is_never_certified():
    net, spec = needs_cuts()
    shifted = Specification(spec.coefficients, spec.offset - 0.05, spec.clause)
    found = ask(net, shifted, boxes=2000, confirm=lambda x: False)
    assert found.outcome[0] in (Outcome.TIMEOUT, Outcome.ROUNDING)


def test_a_bound_that_is_not_a_number_is_an_error(monkeypatch):
    net, spec = needs_cuts()
    real = input_split.output_bounds
    monkeypatch.setattr(input_split, "output_bounds", lambda k, s: real(k, s) * float("nan"))
    found = ask(net, spec)
    assert found.outcome == (Outcome.ERROR,)
    assert "not a number" in found.detail[0]


def test_an_exception_is_an_error(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("singular")

    monkeypatch.setattr(input_split, "analyse", broken)
    found = ask(*needs_cuts())
    assert found.outcome == (Outcome.ERROR,)
    assert found.detail == ("RuntimeError: singular",)


def test_balls_and_several_samples_are_refused():
    net, spec = needs_cuts()
    program = bind_model(net, trace_model(net, torch.zeros(1, 2)))
    box = Interval(torch.zeros(2, 2), torch.ones(2, 2))
    with pytest.raises(CertifyError, match="one box"):
        split_inputs(program, InputSet(box), spec, net, budget=Budget())


def violated_in_a_corner():
    """Unsafe in a tiny part of the box alone: x0 > 0.9 and x1 > 0.9, which no attack looks at."""
    net = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[0].bias.fill_(-1.9)
        net[2].weight.fill_(-1.0)
        net[2].bias.fill_(0.05)
    return net, spec_of([[1.0]], [0.0], (0,))


@pytest.mark.parametrize("bug", ["gap", "half"])
def test_planted_bugs_of_cutting_prove_what_is_false(bug, monkeypatch):
    """What the suite would see: with such a cut, a false property is certified."""
    net, spec = violated_in_a_corner()
    blind = {"confirm": lambda x: False}
    assert ask(net, spec, boxes=500, **blind).outcome[0] is not Outcome.CERTIFIED
    real = input_split._Search._step

    def gap(boxes):
        return input_split._Boxes(boxes.lower, boxes.upper - 0.2, boxes.known)

    def half(boxes):
        return boxes[: len(boxes) // 2]

    def step(self, boxes):
        return [{"gap": gap, "half": half}[bug](each) for each in real(self, boxes)]

    monkeypatch.setattr(input_split._Search, "_step", step)
    assert ask(net, spec, boxes=500, **blind).outcome[0] is Outcome.CERTIFIED


def test_halves_cover_their_box_and_share_the_cut():
    torch.manual_seed(0)
    lower = torch.rand(50, 3)
    upper = lower + torch.rand(50, 3) * 10.0 ** -torch.randint(0, 7, (50, 3))
    boxes = input_split._Boxes(lower, upper, {})
    score = torch.where(upper > lower, torch.rand(50, 3), -1.0)
    halves = boxes.halved(score)
    first, second = halves[:50], halves[50:]
    cut = score.argmax(1)
    rows = torch.arange(50)
    assert torch.equal(first.lower, lower)
    assert torch.equal(second.upper, upper)
    assert torch.equal(first.upper[rows, cut], second.lower[rows, cut])
    others = torch.ones_like(score, dtype=torch.bool)
    others[rows, cut] = False
    assert torch.equal(first.upper[others], upper[others])
    assert torch.equal(second.lower[others], lower[others])


def test_a_bound_that_overflows_proves_nothing():
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        net[2].bias.copy_(torch.tensor([3e38, -3e38]))
    x = torch.rand(1, 2)
    inputs = InputSet.around(x, ThreatModel.box("linf", 0.1))
    program = bind_model(net, trace_model(net, x))
    spec = margins(torch.tensor([0]), 2)
    assert split_inputs(program, inputs, spec, net, budget=Budget(100)).outcome == ("error",)
