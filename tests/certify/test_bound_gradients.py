"""Bounds can be differentiated, for certified training."""

from __future__ import annotations

import torch
from torch import nn

from certify.bind import bind
from certify.interval import Interval
from certify.propagate import propagate
from certify.trace import trace_model


def test_gradients_of_bounds_are_those_of_differences() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).double()
    x = torch.rand(2, 1, 4, 4).double()
    graph = trace_model(model, x)
    weight = dict(model.named_parameters())["0.weight"]

    def least() -> torch.Tensor:
        program = bind(graph, dict(model.named_parameters()), frozen=False, rounded=False)
        box = Interval(x - 0.1, x + 0.1)
        return propagate(program, {"x": box}, rounded=False)[program.output].lower.sum()

    (gradient,) = torch.autograd.grad(least(), weight)
    with torch.no_grad():
        before = least()
        weight[0, 0, 1, 1] += 1e-6
        change = (least() - before) / 1e-6
    torch.testing.assert_close(change, gradient[0, 0, 1, 1], rtol=1e-3, atol=1e-5)
