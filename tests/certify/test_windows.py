"""Windows are a cheaper form of full rows: the same bounds, for convolutions of any geometry."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

import certify.linear
from attacks.threat import ThreatModel
from certify.ball import InputSet
from certify.bind import bind_model
from certify.crown import analyse, output_bounds
from certify.specification import margins
from certify.trace import trace_model
from certify.windows import Windows


def random_cnn(seed: int) -> tuple[nn.Module, Tensor] | None:
    """Convolutions of odd kernels, strides and paddings (padding beyond the kernel too)."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    channels = draw.choice([1, 2, 3])
    value = x = torch.rand(2, channels, *draw.choice([(8, 8), (9, 7), (12, 10), (6, 11)]))
    layers: list[nn.Module] = []
    for _ in range(draw.choice([2, 3, 4])):
        kernel = draw.choice([1, 2, 3, 4]), draw.choice([1, 2, 3])
        stride = draw.choice([1, 1, 2, 3]), draw.choice([1, 2])
        padding = draw.choice([0, 1, 2]), draw.choice([0, 1, 2])
        out = draw.choice([2, 4, 5])
        if any(
            size + 2 * p < k for size, p, k in zip(value.shape[2:], padding, kernel, strict=True)
        ):
            return None
        layers.append(nn.Conv2d(channels, out, kernel, stride, padding, bias=draw.random() < 0.8))
        value, channels = layers[-1](value), out
        if draw.random() < 0.4:
            norm = nn.BatchNorm2d(out).eval()
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            layers.append(norm)
        if draw.random() < 0.85:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(value[0].numel(), 4)).eval(), x


@pytest.mark.parametrize("norm", ["linf", pytest.param("l2", marks=pytest.mark.slow)])
def test_bounds_are_those_of_full_rows(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = used = 0
    made = Windows.of_neurons

    def counted(*arguments: object) -> Windows | None:
        nonlocal used
        found = made(*arguments)  # type: ignore[arg-type]
        used += found is not None
        return found

    for seed in range(16):
        case = random_cnn(seed)
        if case is None:
            continue
        model, x = case
        program = bind_model(model, trace_model(model, x))
        inputs = InputSet.around(x, ThreatModel.box(norm, 0.1 if norm == "linf" else 0.5))
        rows = margins(torch.tensor([0, 1]), 4)
        with torch.no_grad():
            monkeypatch.setattr(certify.linear, "_FEW_ROWS", 0)
            monkeypatch.setattr(Windows, "of_neurons", counted)
            found = output_bounds(analyse(program, inputs, tighten=True), rows)
            monkeypatch.setattr(certify.linear, "_FEW_ROWS", 10**9)
            monkeypatch.setattr(Windows, "of_neurons", lambda *_: None)
            full = output_bounds(analyse(program, inputs, tighten=True), rows)
        assert torch.allclose(found, full, atol=1e-4, rtol=1e-4), seed
        tried += 1
    assert tried > 8
    assert used > 8


def test_neurons_that_see_padding_alone() -> None:
    torch.manual_seed(0)
    narrow = nn.Conv2d(2, 3, 1, padding=2, bias=False)  # nought there, but for rounding: open
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), narrow, nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)
    )
    x = torch.rand(2, 1, 6, 5)
    model(x)
    model.eval()
    program = bind_model(model, trace_model(model, x))
    with torch.no_grad():
        inputs = InputSet.around(x, ThreatModel.box("linf", 0.1))
        known = analyse(program, inputs, tighten=True)
        rows = margins(torch.tensor([0, 1]), 4)
        found = output_bounds(known, rows)
        corners = inputs.box.lower + (inputs.box.upper - inputs.box.lower) * torch.rand(
            500, *x.shape
        )
        values = model(corners.flatten(0, 1)).view(500, 2, 4)
        reached = torch.einsum("nrk,pnk->pnr", rows.coefficients, values).amin(0)
    assert bool((found <= reached).all())
