"""Bounds where parameters are intervals, alone and together with the input."""

from __future__ import annotations

import pytest
import torch
from bound_nets import normed
from torch import Tensor, nn
from torch.func import functional_call

from certify.bind import bind
from certify.interval import Interval, as_interval
from certify.propagate import propagate
from certify.trace import trace_model

MODELS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(50, 4), nn.ReLU(), nn.Linear(4, 3)),
    "convolution": lambda: nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1, groups=2), nn.ReLU()),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 3, 2, 1), nn.Flatten()),
    "batch norm": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), normed(nn.BatchNorm2d)((4,))),
    "layer norm": lambda: nn.Sequential(nn.Flatten(), nn.LayerNorm(50), nn.PReLU()),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_no_parameters_in_their_intervals_lead_out_of_the_bounds(name: str, eps: float) -> None:
    torch.manual_seed(0)
    model, x = MODELS[name]().eval(), torch.randn(2, 2, 5, 5)
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    boxes: dict[str, Tensor | Interval] = {}
    for key, value in state.items():
        value = value.detach()
        width = 0.05 * value.abs() + 0.01 if value.is_floating_point() else value
        boxes[key] = Interval(value - width, value + width) if value.is_floating_point() else value
    program = bind(trace_model(model, x), boxes)
    box = Interval(x - eps, x + eps)
    with torch.no_grad():
        found = as_interval(propagate(program, {"x": box})[program.output])
        low = torch.full_like(found.lower, torch.inf).double()
        high = -low
        for trial in range(300):
            drawn = {k: _drawn(v, corner=trial % 2 == 0) for k, v in boxes.items()}
            value = functional_call(model, drawn, (_drawn(box, corner=trial % 2 == 0),)).double()
            low, high = torch.minimum(low, value), torch.maximum(high, value)
    assert bool((low >= found.lower.double()).all())
    assert bool((high <= found.upper.double()).all())
    width = found.upper - found.lower
    assert ((high - low) / width)[width > 0].median() > 0.05


def _drawn(box: Tensor | Interval, *, corner: bool) -> Tensor:
    if isinstance(box, Tensor):
        return box
    u = torch.rand(box.shape)
    point = box.lower + (u.round() if corner else u) * (box.upper - box.lower)
    return point.clamp(box.lower, box.upper)
