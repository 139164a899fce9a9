"""Bugs planted on purpose: the checks that hold attacks on explanations must go red on each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from bending_checks import (
    CASES,
    Case,
    check_alone,
    check_honest,
)

import attacks.explanation_search
from attacks.balls import Ball
from attacks.explanation_attacks import (
    ExplanationAttackResult,
)
from attacks.threat import WeightBudget

_limits, _step = WeightBudget.bounds, Ball.step


def doubled_gamma(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WeightBudget, "bounds", lambda b, w: _limits(replace(b, gamma=2 * b.gamma), w))


def no_projection(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ball, "step", lambda ball, at, gradient, size: at + size * gradient.sign())


def prediction_forgotten(patch: pytest.MonkeyPatch) -> None:
    judged = attacks.explanation_search.Search._judge

    def look(search, rows, logits, value):
        found = judged(search, rows, logits, value)
        found.counts = torch.ones_like(found.counts)
        return found

    patch.setattr(attacks.explanation_search.Search, "_judge", look)


def surrogate_believed(patch: pytest.MonkeyPatch) -> None:
    """The distance read off the softplus net."""
    plain = attacks.explanation_search.ExplainedModel.explain
    patch.setattr(
        attacks.explanation_search.ExplainedModel,
        "explain",
        lambda model, points, seed, smooth=False: plain(model, points, seed, True),
    )


def a_step_late(patch: pytest.MonkeyPatch) -> None:
    record = ExplanationAttackResult.record

    def late(result, samples, points, restart, iteration):
        points = type(points)(points.x.roll(1, 0), points.weights)
        record(result, samples, points, restart, iteration)

    patch.setattr(ExplanationAttackResult, "record", late)


def one_stream(patch: pytest.MonkeyPatch) -> None:
    """Random numbers by place, not by sample."""
    patch.setattr(
        attacks.explanation_search.Search,
        "_random",
        lambda s, rows, keys: attacks.explanation_search.Points(
            Ball.around(s.threat, s.x[rows]).start(torch.arange(len(rows)))
        ),
    )


@pytest.mark.parametrize(
    ("plant", "name", "check"),
    [
        (doubled_gamma, "weights", check_honest),
        (doubled_gamma, "absolute", check_honest),
        (no_projection, "linf", check_honest),
        (prediction_forgotten, "linf", check_honest),
        (surrogate_believed, "linf", check_honest),
        (a_step_late, "linf", check_honest),
        (one_stream, "linf", check_alone),
    ],
)
def test_a_planted_bug_is_seen(
    plant: Callable[[pytest.MonkeyPatch], None],
    name: str,
    check: Callable[[Case], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = CASES[name]()
    check(one)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(one)
