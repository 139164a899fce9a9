"""Bugs planted on purpose: the checks that hold the bounds must go red on each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from bound_checks import (
    check_exact,
    check_not_numbers,
    check_points,
    interval_domain,
)
from bound_nets import Case, alone, net

import certify.interval_unary
import certify.propagate
from certify.interval import Interval, as_interval
from certify.maps import Convolution, Matrix
from certify.propagate import RULES
from certify.rounding import OFF, Rounding

aten = torch.ops.aten
Plant = Callable[[pytest.MonkeyPatch], None]
_through, _relu, _tanh = (
    certify.propagate.through,
    RULES[aten.relu.default],
    RULES[aten.tanh.default],
)


def relu_net() -> Case:
    return net(3, 1, ["Linear", "ReLU", "Linear", "ReLU"], 0.4)


def mask_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(RULES, aten.relu.default, lambda context, x: as_interval(x))


def neurons_called_active(patch: pytest.MonkeyPatch) -> None:
    """Those that may be negative are taken for zero at most."""

    def relu(context: object, x: Interval) -> Interval:
        return Interval(x.lower.relu(), torch.where(x.lower > 0, x.upper, 0))

    patch.setitem(RULES, aten.relu.default, relu)


def eps_halved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Interval, "gap", lambda box, share=1.0: (box.upper - share * box.lower) / 2)


def ends_swapped(patch: pytest.MonkeyPatch) -> None:
    def through(linear: object, x: Interval, rounding: Rounding) -> Interval:
        found = _through(linear, x, rounding)
        return Interval(found.upper, found.lower)

    patch.setattr(certify.propagate, "through", through)


def nan_let_through(patch: pytest.MonkeyPatch) -> None:
    def relu(context: object, x: Interval) -> Interval:
        return _relu(context, x).each(torch.nan_to_num)

    patch.setitem(RULES, aten.relu.default, relu)


def comparisons_with_nan(patch: pytest.MonkeyPatch) -> None:
    """Where x > 0 is false, x is said to be no more than 0."""

    def relu(context: object, x: Interval) -> Interval:
        return x.each(lambda end: torch.where(end > 0, end, 0))

    patch.setitem(RULES, aten.relu.default, relu)


def rounding_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rounding, "of", classmethod(lambda cls, kind: OFF))


def signs_kept(patch: pytest.MonkeyPatch) -> None:
    """The weight in place of its absolute value."""
    for kind in (Matrix, Convolution):
        patch.setattr(kind, "apply_abs", lambda self, x, bias=0.0: self.apply(x))
        patch.setattr(kind, "spread_by", lambda self, *_: self.like(self.weight / 2, None).apply)


def valley_forgotten(patch: pytest.MonkeyPatch) -> None:
    def ends_only(x: Interval, function: Callable, *_: float) -> Interval:
        return certify.interval_unary.hull(function(x.lower), function(x.upper))

    patch.setattr(certify.interval_unary, "valley", ends_only)


def wrong_way(patch: pytest.MonkeyPatch) -> None:
    def tanh(context: object, x: Interval) -> Interval:
        found = _tanh(context, x)
        return Interval(found.lower, found.lower + (found.upper - found.lower) * 0.9)

    patch.setitem(RULES, aten.tanh.default, tanh)


def points() -> None:
    check_points(interval_domain, alone("ReLU", 1))
    check_points(interval_domain, relu_net())
    check_points(interval_domain, net(1, 3, ["Conv2d", "ReLU", "Conv2d", "Tanh"], 0.2))
    check_points(interval_domain, net(1, 3, ["Conv2d", "BatchNorm2d", "MaxPool2d"], 0.2))
    check_points(interval_domain, alone("Tanh", 1))
    check_points(interval_domain, alone("SiLU", 1, 3.0))


def exact() -> None:
    for seed in range(3):
        check_exact(interval_domain, net(seed, 1, ["Linear", "ReLU"] * 8, 0.0, samples=20))


def numbers() -> None:
    check_not_numbers(interval_domain, relu_net())


PLANTS: list[tuple[Plant, Callable[[], None]]] = [
    (mask_dropped, points),
    (neurons_called_active, points),
    (eps_halved, points),
    (ends_swapped, points),
    (signs_kept, points),
    (valley_forgotten, points),
    (wrong_way, points),
    (nan_let_through, numbers),
    (comparisons_with_nan, numbers),
    (rounding_off, exact),
]


@pytest.mark.parametrize("check", [points, exact, numbers])
def test_without_a_bug_the_checks_are_green(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize(("plant", "check"), PLANTS, ids=[p.__name__ for p, _ in PLANTS])
def test_a_planted_bug_turns_them_red(
    plant: Plant, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
