"""Condensed programs: bounds hold every value tried, and are those of the ordinary program."""

from __future__ import annotations

import copy
from collections.abc import Callable

import bound_checks
import numpy as np
import pytest
import torch
from bound_checks import (
    check_batched,
    check_exact,
    check_monotone,
    check_not_numbers,
    check_points,
    interval_domain,
    linear_domain,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thin_nets import FORMS, SHAPE, sparse
from torch import Tensor, nn

from attacks.threat import Norm, ThreatModel
from certify import condense as condensing
from certify import methods, scattered
from certify.ball import InputSet
from certify.bind import bind_model
from certify.condense import condense
from certify.crown import analyse, output_bounds
from certify.maps import affine
from certify.methods import METHODS, Budget, Certifier, Method
from certify.program import Program
from certify.result import Outcome
from certify.rounding import OFF, Rounding
from certify.sparse_map import SparseMatrix
from certify.specification import margins
from certify.trace import trace_model

Plant = Callable[[pytest.MonkeyPatch], None]

few = settings(
    max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of any size are condensed, and by the checks' domains too."""
    monkeypatch.setattr(condensing, "LEAST", 0)
    monkeypatch.setattr(condensing, "DENSITY", 0.5)
    monkeypatch.setattr(condensing, "CONVOLUTION", 0.5)
    monkeypatch.setattr(bound_checks, "bind_model", lambda *args: condense(bind_model(*args)))


def ordinary(model: nn.Module) -> Program:
    return bind_model(model, trace_model(model, torch.rand(2, *SHAPE)))


def sparse_maps(program: Program) -> list[SparseMatrix]:
    parts = [part for node in program.nodes for part in affine(program, node) or []]
    return [linear for _, linear in parts if isinstance(linear, SparseMatrix)]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_condensed(form: str) -> None:
    program = ordinary(sparse(form, 0).model)
    small = condense(program)
    assert len(sparse_maps(small)) >= 2
    assert not sparse_maps(program)
    neurons = [sum(n.shape[-1] for n in p.nodes if len(n.shape) == 2) for p in (program, small)]
    assert form in ("conv", "pooled") or neurons[1] < neurons[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("domain", [interval_domain, linear_domain])
def test_each_form(form: str, domain: bound_checks.Domain) -> None:
    case = sparse(form, 1)
    check_points(domain, case)
    check_exact(domain, case)
    check_monotone(domain, case)
    check_batched(domain, case)
    if domain is interval_domain:
        check_not_numbers(domain, case)


@pytest.mark.slow
@few
@given(st.sampled_from(sorted(FORMS)), st.integers(2, 10**6), st.floats(0.02, 0.4))
def test_random_nets(form: str, seed: int, density: float) -> None:
    case = sparse(form, seed, density=density)
    for domain in (interval_domain, linear_domain):
        check_points(domain, case, restarts=1, steps=2)
        check_exact(domain, case)
    check_same(form, case.model, case.x, ThreatModel.box("linf", 0.1))


def bounds(program: Program, inputs: InputSet, rounding: Rounding | None, **how: bool) -> Tensor:
    known = analyse(program, inputs, rounding=rounding, **how)  # type: ignore[arg-type]
    return output_bounds(known, margins(torch.zeros(len(inputs), dtype=torch.int64), 4))


def check_same(form: str, model: nn.Module, x: Tensor, threat: ThreatModel) -> None:
    """Were arithmetic exact, bounds would be those of the ordinary program; so they differ by what
    is taken off for rounding at most.
    """
    program = ordinary(model)
    small, inputs = condense(program), InputSet.around(x, threat)
    searched = 1e-3 if form in ("smooth", "leaky") else 1e-5  # lines that are found by a search
    for lines, tighten in ((False, False), (True, False), (True, True)):
        kept, real = (
            [bounds(p, inputs, rounding, lines=lines, tighten=tighten) for p in (program, small)]
            for rounding in (None, OFF)
        )
        torch.testing.assert_close(*real, rtol=searched, atol=searched)
        assert bool((kept[1] <= real[0]).all())
        taken = sum((r - k).abs() for k, r in zip(kept, real, strict=True))
        assert bool((taken < 1e-3 * (1 + real[0].abs())).all())


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_other_norms(norm: Norm) -> None:
    case = sparse("conv", 5)
    check_same("conv", case.model, case.x, ThreatModel.box(norm, 0.5))


def test_rows_in_blocks_and_in_full_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    case = sparse("mlp", 6, density=0.3)
    inputs = InputSet.around(case.x, ThreatModel.box("linf", 0.05))
    whole = bounds(condense(ordinary(case.model)), inputs, None, tighten=True)
    for name, value in (("_BLOCK", 200), ("_MOST", 10)):
        monkeypatch.setattr(scattered, name, value)
        other = bounds(condense(ordinary(case.model)), inputs, None, tighten=True)
        torch.testing.assert_close(other, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["mlp", "conv", "residual"])
def test_verdicts_are_the_same(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = sparse(form, 3, density=0.45)
    x, ids = torch.rand(8, *SHAPE), torch.arange(8)
    with torch.no_grad():
        case.model[-1].bias -= case.model(x).mean(0)  # margins on both sides of 0
        y = case.model(x).argmax(1)
    provers = [Certifier(case.model, x)]
    monkeypatch.setattr(methods, "condense", lambda program: program)
    provers.append(Certifier(case.model, x))
    assert sparse_maps(provers[0].program)
    assert not sparse_maps(provers[1].program)
    seen = set()
    for method in METHODS:
        for eps in (0.02, 0.1, 0.5):
            threat, budget = ThreatModel.box("linf", eps), Budget(5, 60)
            first, second = (
                prover.certify(method, x, y, ids, threat, budget) for prover in provers
            )
            seen |= set(first.outcome)
            for one, other, lower in zip(first.outcome, second.outcome, second.lower, strict=True):
                assert one == other or abs(lower) < 1e-3, (method, one, other, lower)
    assert {Outcome.CERTIFIED, Outcome.UNKNOWN} <= seen


def test_what_could_overflow_stays_and_so_do_numbers_that_are_none() -> None:
    case = sparse("mlp", 8)
    for bad in (torch.nan, torch.inf, 2.0**100):
        model = copy.deepcopy(case.model)
        with torch.no_grad():
            model[1].weight[0, 0] = bad
        assert condense(program := ordinary(model)) is program


@pytest.mark.parametrize("method", METHODS)
def test_a_neuron_that_is_gone_may_spoil_what_is_left(method: Method) -> None:
    """It is used by none, and overflows for inputs far out: 0 times infinity is no number."""
    model = nn.Sequential(nn.Linear(10, 40), nn.ReLU(), nn.Linear(40, 3)).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
        model[0].weight[0], model[0].weight[1] = 1e-30, 1e12
        model[2].weight[0, 0] = model[2].bias[0] = 1.0
    x, y = torch.full((1, 10), 1e30), torch.zeros(1, dtype=torch.int64)
    assert not bool(model(x).isfinite().all())
    threat = ThreatModel.box("linf", 1e28, lower=-1e31, upper=1e31)
    found = Certifier(model, x).certify(method, x, y, y, threat, Budget(2, 5))
    assert found.outcome == (Outcome.ERROR,)


@pytest.mark.parametrize("layers", [(0,), (2,), (0, 2, 4)])
def test_layers_without_a_weight(layers: tuple[int, ...]) -> None:
    """A neuron of such a layer is open where its bias is 0."""
    widths = (nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    model = nn.Sequential(*widths).eval()
    with torch.no_grad():
        model[2].weight[torch.rand(8, 8) > 0.1] = 0
        for i in layers:
            model[i].weight.zero_()
            model[i].bias.zero_()
        model[4].bias[1] += 9
    x, y = torch.rand(3, 9), torch.ones(3, dtype=torch.int64)
    prover = Certifier(model, x)
    assert sparse_maps(prover.program)
    for method in METHODS:
        threat = ThreatModel.box("linf", 0.1)
        found = prover.certify(method, x, y, torch.arange(3), threat, Budget(2, 5))
        assert set(found.outcome) == {Outcome.CERTIFIED}, (method, found.detail)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    case = sparse("mlp", 6, density=0.3)
    inputs = InputSet.around(case.x, ThreatModel.box("linf", 0.05))
    whole = bounds(condense(ordinary(case.model)), inputs, None, tighten=True)
    monkeypatch.setattr(scattered, "_TABLE", 0)
    other = bounds(condense(ordinary(case.model)), inputs, None, tighten=True)
    torch.testing.assert_close(other, whole, rtol=0, atol=0)
    monkeypatch.setattr(condensing, "_MOST_ENTRIES", 10)
    assert condense(program := ordinary(case.model)) is program


def test_sparse_layers_behind_a_dense_convolution_stay() -> None:
    """Behind it rows are windows, which are cheaper than full rows."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(2304, 10),
    ).eval()  # fmt: skip
    for layer, kept in ((net[2], 0.05), (net[5], 0.01)):
        drop = torch.rand(layer.weight.shape) > kept
        layer.weight.data.masked_fill_(drop, 0.0)
    with torch.no_grad():
        program = bind_model(net, trace_model(net, torch.rand(2, 1, 16, 16)))
        assert condense(program) is program
        net[0].weight.data[1:] = 0.0
        program = bind_model(net, trace_model(net, torch.rand(2, 1, 16, 16)))
        assert condense(program) is not program


def test_a_dense_network_stays() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 20), nn.ReLU(), nn.Linear(20, 4)).eval()
    assert condense(program := ordinary(model)) is program


_fold, _count = condensing._fold_constants, condensing._inputs_of_rows


def constants_forgotten(patch: pytest.MonkeyPatch) -> None:
    def fold(program: Program, stages: list[condensing._Stage]) -> None:
        before = [stage.bias for stage in stages]
        _fold(program, stages)
        for stage, bias in zip(stages, before, strict=True):
            stage.bias = bias

    patch.setattr(condensing, "_fold_constants", fold)


def neurons_of_one_weight_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(condensing, "_inputs_of_rows", lambda m: _count(m) - (_count(m) == 1))


def neurons_dropped_by_the_wrong_side(patch: pytest.MonkeyPatch) -> None:
    """Those that later neurons use, where a row of the next matrix is empty."""
    patch.setattr(condensing, "_inputs_of_rows", lambda m: np.roll(_count(m), 1))


def coefficients_lost(patch: pytest.MonkeyPatch) -> None:
    def least(self: scattered.Scattered, *ends: Tensor) -> Tensor:
        return self._summed(self._by_sign(*ends[:2])) * 0

    patch.setattr(scattered.Scattered, "least", least)


@pytest.mark.parametrize(
    "plant",
    [
        constants_forgotten,
        neurons_of_one_weight_dropped,
        neurons_dropped_by_the_wrong_side,
        coefficients_lost,
    ],
)
def test_planted_bugs(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        for seed in range(3):
            case = sparse("mlp", seed, eps=0.4, density=0.3)
            check_exact(linear_domain, case)
            check_points(linear_domain, case, restarts=2, steps=3)

    check()
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
