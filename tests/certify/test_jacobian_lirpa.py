"""Boxes of gradients against auto_LiRPA's Jacobian bounds, without its slope optimisation.

PyPI's auto_LiRPA has none: a later one (tried: 0.7.1) has to be on PYTHONPATH, else these tests are
skipped. With its repository, Verified-Intelligence/auto_LiRPA, checked out in FOLDER:

    PYTHONPATH=FOLDER python -m pytest tests/certify/test_jacobian_lirpa.py

Through ReLU masks both draw the same chords, and ours are never looser. On smooth activations the
choice of lines differs: ours are of least area, theirs touch in the middle of where they may. Ours
are tighter on average, by a tenth on deep nets, and looser on single entries by up to 3% of the
width. For batches theirs raise an error, or, where there are as many samples as logits, are of no
sample; ours are those of each.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attacks.explanations import Explanation
from attacks.threat import ThreatModel
from certify import lirpa
from certify.ball import InputSet
from certify.explaining import ExplanationCertifier
from certify.interval import Interval


def jacobian_module() -> Any:
    """auto_LiRPA's module of Jacobian bounds; skips where there is none."""
    if lirpa.load() is None:
        pytest.skip(str(lirpa.notice()))
    try:
        return importlib.import_module("auto_LiRPA.jacobian")
    except ImportError:
        pytest.skip("this auto_LiRPA has no Jacobian bounds: see the top of this file")


def theirs(model: nn.Module, box: Interval) -> Interval:
    """Their bounds of the Jacobian, (n, logits, features)."""
    operator, library = jacobian_module().JacobianOP, lirpa.load()
    assert library is not None

    class Differentiated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = operator.apply(self.model(x), x)
            return found

    logging.disable(logging.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        middle = (box.lower + box.upper) / 2
        bounded = library.BoundedModule(Differentiated(), middle)
        ball = library.PerturbationLpNorm(norm=float("inf"), x_L=box.lower, x_U=box.upper)
        inputs = library.BoundedTensor(middle, ball)
        lower, upper = bounded.compute_jacobian_bounds(inputs, optimize=False)
    logging.disable(logging.NOTSET)
    return Interval(lower.detach(), upper.detach())


def perceptron(act: type[nn.Module], widths: list[int], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    steps: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        steps += [nn.Linear(a, b), act()]
    model = nn.Sequential(*steps[:-1]).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False).mul_(2.0)
    return model


def ours(model: nn.Module, x: Tensor, threat: ThreatModel | None) -> Interval:
    classes = model(x).shape[1]
    certifier = ExplanationCertifier(model, x, Explanation(), classes)
    seed = torch.eye(classes).repeat(len(x), 1)
    box = certifier.box(x.repeat_interleave(classes, 0), seed, threat, method="linear")
    return box.each(lambda end: end.view(len(x), classes, -1))


def looser(model: nn.Module, eps: float) -> tuple[float, float]:
    """The most that ours is looser, as a share of the width; and our mean width over theirs."""
    x = torch.rand(1, model[0].in_features)
    threat = ThreatModel.box("linf", eps, -10.0, 10.0)
    mine, other = ours(model, x, threat), theirs(model, InputSet.around(x, threat).box)
    point = ours(model, x, None)
    allowed = float((point.upper - point.lower).max())  # for rounding, which theirs are not
    width = other.upper - other.lower
    worse = torch.maximum(other.lower - mine.lower, mine.upper - other.upper) - allowed
    share = (worse / width.clamp(min=1e-6)).clamp(min=0)
    return float(share.max()), float((mine.upper - mine.lower - 2 * allowed).mean() / width.mean())


SHAPES = [[5, 8, 3], [6, 10, 10, 3], [10, 20, 20, 20, 4]]


@pytest.mark.parametrize("eps", [0.05, 0.3])
@pytest.mark.parametrize("widths", SHAPES)
def test_never_looser_through_relus(widths: list[int], eps: float) -> None:
    for seed in range(2):
        share, _ = looser(perceptron(nn.ReLU, widths, seed), eps)
        assert share <= 1e-4


@pytest.mark.parametrize("eps", [0.05, 0.3])
@pytest.mark.parametrize("widths", SHAPES)
def test_hardly_looser_through_sigmoids(widths: list[int], eps: float) -> None:
    for seed in range(2):
        share, mean = looser(perceptron(nn.Sigmoid, widths, seed), eps)
        assert share <= 0.04
        assert mean <= 1.02


def test_batches() -> None:
    model, threat = perceptron(nn.ReLU, [5, 8, 8, 3], 0), ThreatModel.box("linf", 0.1, -10.0, 10.0)
    x = torch.rand(3, 5)
    whole = ours(model, x, threat)
    alone = [ours(model, x[i : i + 1], threat) for i in range(3)]
    for end in ("lower", "upper"):
        each = torch.cat([getattr(box, end) for box in alone])
        assert torch.allclose(getattr(whole, end), each, atol=1e-5)
    box = InputSet.around(x, threat).box
    found = theirs(model, box)  # three samples, three logits
    single = theirs(model, Interval(box.lower[:1], box.upper[:1]))
    assert not torch.allclose(found.lower[:1], single.lower, atol=1e-3), "mended there: say so here"
