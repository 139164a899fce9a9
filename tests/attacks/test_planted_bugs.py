"""Bugs planted on purpose: the checks that hold the attacks must go red on each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from attack_checks import (
    NORMS,
    Case,
    Norm,
    check_active_set,
    check_early_ends,
    check_honest,
    check_order_free,
)
from torch import Tensor

import attacks.balls
import attacks.lanes
import attacks.pgd
from attacks.losses import margin
from attacks.result import AttackResult
from attacks.threat import ThreatModel

Plant = Callable[[pytest.MonkeyPatch], None]
Check = Callable[[Case], None]

_bounds, _record, _around = ThreatModel.bounds, AttackResult.record, attacks.balls.Ball.around
_shrink, _keys = attacks.lanes.Lanes.shrink, attacks.lanes.stream_keys
_move = attacks.pgd._PGD.move


def honest(case: Case) -> None:
    check_honest(case, case.run())


def order_free(case: Case) -> None:
    check_order_free(case, case.run(), 0)


def no_projection(patch: pytest.MonkeyPatch) -> None:
    """Neither onto the ball nor, for linf, onto its box: only the input box is left."""
    for norm in NORMS:
        patch.setitem(attacks.balls.PROJECTIONS, norm, lambda v, low, high, eps: v)
    patch.setattr(ThreatModel, "bounds", lambda threat, x: _bounds(replace(threat, eps=9.0), x))


def no_box(patch: pytest.MonkeyPatch) -> None:
    wide = {"lower": torch.tensor(-9.0), "upper": torch.tensor(9.0)}
    patch.setattr(ThreatModel, "bounds", lambda threat, x: _bounds(replace(threat, **wide), x))


def a_bit_too_far(patch: pytest.MonkeyPatch) -> None:
    """The ends rounded to nearest, not inward."""

    def bounds(threat: ThreatModel, x: Tensor) -> tuple[Tensor, Tensor]:
        low, high = (x.double() + side * threat.eps for side in (-1, 1))
        return low.float().clamp(0, 1), high.float().clamp(0, 1)

    patch.setattr(ThreatModel, "bounds", bounds)


def mask_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        ThreatModel, "bounds", lambda threat, x: _bounds(replace(threat, immutable=None), x)
    )


def labels_shifted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attacks.lanes, "margin", lambda z, y: margin(z, (y + 1) % z.shape[1]))


def loss_upside_down(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attacks.lanes, "margin", lambda z, y: -margin(z, y))


def noise_by_position(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        attacks.lanes,
        "stream_keys",
        lambda seed, method, ids, r: _keys(seed, method, range(len(list(ids))), r),
    )


def noise_of_one_stream(patch: pytest.MonkeyPatch) -> None:
    """One generator for the whole batch, as most libraries have it."""
    stream = torch.Generator().manual_seed(0)
    patch.setattr(
        attacks.balls, "uniform", lambda keys, d: torch.rand(len(keys), d, generator=stream)
    )


def wrong_slot(patch: pytest.MonkeyPatch) -> None:
    def record(
        result: AttackResult, samples: Tensor, inputs: Tensor, restart: Tensor, iteration: Tensor
    ) -> None:
        _record(result, samples.roll(1), inputs, restart, iteration)

    patch.setattr(AttackResult, "record", record)


def a_step_late(patch: pytest.MonkeyPatch) -> None:
    """The iterate after the one that broke the sample is written down."""

    def record(
        result: AttackResult, samples: Tensor, inputs: Tensor, restart: Tensor, iteration: Tensor
    ) -> None:
        _record(result, samples, inputs, restart, iteration + 1)

    patch.setattr(AttackResult, "record", record)


def places_mixed_up(patch: pytest.MonkeyPatch) -> None:
    """When the tile shrinks, the iterates stay where they were and the samples move."""

    def shrink(lanes: attacks.lanes.Lanes, size: int) -> None:
        point = lanes.state["point"][:size].clone()
        _shrink(lanes, size)
        lanes.state["point"] = point

    patch.setattr(attacks.lanes.Lanes, "shrink", shrink)


def ends_at_once(patch: pytest.MonkeyPatch) -> None:
    """A restart ends when half of the features repeat themselves, not only when all do."""

    def move(self: attacks.pgd._PGD, lanes: attacks.lanes.Lanes, *more: Tensor) -> Tensor:
        older = lanes.state["older"]
        _move(self, lanes, *more)
        same = (lanes.state["point"] == older).double().flatten(1).mean(1)
        return (lanes.step > 0) & (same > 0.5)

    patch.setattr(attacks.pgd._PGD, "move", move)


def balls_mixed_up(patch: pytest.MonkeyPatch) -> None:
    """A refilled row keeps the ball of the sample before it."""
    patch.setattr(attacks.balls.Ball, "replace", lambda ball, rows, other, count: None)


PLANTS: list[tuple[Plant, Norm, list[Check]]] = [
    *((no_projection, norm, [honest]) for norm in NORMS),
    *((no_box, norm, [honest]) for norm in NORMS),
    (a_bit_too_far, "linf", [honest]),
    *((mask_ignored, norm, [honest]) for norm in NORMS),
    (labels_shifted, "linf", [honest]),
    (loss_upside_down, "linf", [honest]),
    *((noise_by_position, norm, [order_free]) for norm in NORMS),
    (noise_of_one_stream, "linf", [order_free]),
    (wrong_slot, "linf", [honest]),
    (a_step_late, "linf", [honest]),
    (places_mixed_up, "linf", [honest, order_free, check_active_set]),
    (ends_at_once, "linf", [check_early_ends]),
    (balls_mixed_up, "linf", [honest, order_free]),
]


def the_case(norm: Norm) -> Case:
    """Samples at the ends of the box, a mask, and a tile that has to shrink."""
    case = Case.make("cnn-small", norm, n=60)
    mask = torch.zeros(case.x.shape[1:], dtype=torch.bool)
    mask[..., ::3] = True
    x = case.x.where(case.x > 0.2, 0.0).where(case.x < 0.8, 1.0)
    threat = replace(case.threat, immutable=mask, eps=2.5 * case.threat.eps)
    case = replace(case, x=x, tiles=(32, 64), threat=threat)
    return replace(case, y=attacks.pgd.TiledClassifier(case.module).logits(x).argmax(1))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("check", [honest, order_free, check_active_set, check_early_ends])
def test_without_a_bug_the_checks_hold(check, norm):
    check(the_case(norm))


@pytest.mark.parametrize(
    ("plant", "norm", "check"),
    [(plant, norm, check) for plant, norm, checks in PLANTS for check in checks],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_planted_bug_is_seen(plant, norm, check, monkeypatch):
    case = the_case(norm)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(case)
