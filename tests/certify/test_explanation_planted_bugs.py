"""Bugs planted in the gradient's bounds on purpose: the soundness suite must go red on each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from explanation_checks import check_attained
from explanation_nets import net
from torch import Tensor, nn

import certify.explaining
import certify.pool_gradient
from attacks.explanations import Explanation
from attacks.threat import ThreatModel, WeightBudget
from certify import slopes
from certify.ball import InputSet
from certify.explaining import METHODS, ExplanationCertifier
from certify.interval import Interval
from certify.slope_curves import BENT

Plant = Callable[[pytest.MonkeyPatch], None]
_box, _around, _step = certify.explaining._box, certify.explaining._around, BENT[slopes.step]
_around_inputs = InputSet.around


def mask_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(
        BENT, slopes.step, lambda z, at: Interval.point(torch.ones_like(z.lower)).each(lambda e: e)
    )


def mask_of_the_middle(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(BENT, slopes.step, lambda z, at: _step(Interval.point(z.center), at))


def mask_upside_down(patch: pytest.MonkeyPatch) -> None:
    def step(z: Interval, at: float) -> Interval:
        found = _step(z, at)
        return replace(found, lower=1 - found.upper, upper=1 - found.lower)

    patch.setitem(BENT, slopes.step, step)


def eps_halved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        certify.explaining.InputSet,
        "around",
        lambda x, threat: _around_inputs(x, replace(threat, eps=threat.eps / 2)),
    )


def gamma_halved(patch: pytest.MonkeyPatch) -> None:
    def around(weight: Tensor, budget: WeightBudget) -> Interval:
        return _around(weight, replace(budget, gamma=budget.gamma / 2))

    patch.setattr(certify.explaining, "_around", around)


def ends_swapped(patch: pytest.MonkeyPatch) -> None:
    def box(*args: object) -> Interval:
        found = _box(*args)  # type: ignore[arg-type]
        return Interval(found.upper, found.lower)

    patch.setattr(certify.explaining, "_box", box)


def batch_summed(patch: pytest.MonkeyPatch) -> None:
    def box(*args: object) -> Interval:
        found = _box(*args)  # type: ignore[arg-type]
        return found.each(lambda end: end.sum(0, keepdim=True).expand_as(end))

    patch.setattr(certify.explaining, "_box", box)


def pooled_at_the_middles_indices(patch: pytest.MonkeyPatch) -> None:
    shares = certify.pool_gradient._shares
    patch.setattr(
        certify.pool_gradient, "_shares", lambda x, w: shares(Interval.point(x.center), w)
    )


def nan_let_through(patch: pytest.MonkeyPatch) -> None:
    def box(*args: object) -> Interval:
        return _box(*args).each(torch.nan_to_num)  # type: ignore[arg-type]

    patch.setattr(certify.explaining, "_box", box)


def inputs() -> None:
    torch.manual_seed(0)
    for seed in range(2):
        check_attained(net("relu", seed), "inputs", entries=6, restarts=16, steps=4)


def narrow() -> None:
    """One unit, so that a bound has nothing to lose: the whole of the box is attained."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 1), nn.Sigmoid(), nn.Linear(1, 3))
    torch.manual_seed(0)
    check_attained(model, "inputs", entries=4, restarts=16, steps=4)


def weights() -> None:
    torch.manual_seed(0)
    check_attained(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), "weights", entries=4)


def pooled() -> None:
    torch.manual_seed(0)
    check_attained(net("max pooling", 1), "inputs", entries=6, restarts=16, steps=4)


def numbers() -> None:
    """A weight of 1e30 overflows in the product of two layers."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2))
    with torch.no_grad():
        for layer in (model[1], model[3]):
            layer.weight.fill_(1e30)
            layer.bias.zero_()
    x, seed = torch.full((1, 2), 0.5), torch.tensor([[1.0, 0]])
    for method in METHODS:
        box = ExplanationCertifier(model, x, Explanation()).box(
            x, seed, ThreatModel.box("linf", 1.0, -1.0), None, method
        )
        held = box.lower.isfinite() & box.upper.isfinite()
        assert not bool(held.any()), "what is 1e60 at zero has a finite box"
        assert not bool((box.upper < math.inf).any())


PLANTS: list[tuple[Plant, Callable[[], None]]] = [
    (mask_dropped, inputs),
    (mask_of_the_middle, inputs),
    (mask_upside_down, inputs),
    (eps_halved, narrow),
    (gamma_halved, weights),
    (ends_swapped, inputs),
    (batch_summed, inputs),
    (pooled_at_the_middles_indices, pooled),
    (nan_let_through, numbers),
]


@pytest.mark.parametrize("check", [inputs, narrow, weights, pooled, numbers])
def test_without_a_bug_the_checks_are_green(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize(("plant", "check"), PLANTS, ids=[p.__name__ for p, _ in PLANTS])
def test_a_planted_bug_turns_them_red(
    plant: Plant, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
