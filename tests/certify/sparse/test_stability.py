"""The share of unstable ReLUs is that of the bounds."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.threat import ThreatModel
from certify.sparse.stability import unstable_relus


def test_shares_of_one_layer_by_hand() -> None:
    network = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0], [1.0], [-1.0], [0.0]]))
        network[0].bias.copy_(torch.tensor([-0.5, 2.0, -3.0, 0.0]))  # crosses at 0.5; +; -; 0
    x = torch.tensor([[0.45], [0.9]])
    found = unstable_relus(network, x, ThreatModel.box("linf", 0.1))
    (layer,) = found.layers
    assert (layer.name, layer.neurons, found.samples) == ("1", 4, 2)
    assert layer.unstable == found.unstable == 1 / 8
    assert layer.active == 3 / 8
    assert layer.inactive == 4 / 8
    assert json.loads(json.dumps(found.to_json()))["unstable"] == 1 / 8


def test_crown_counts_no_more_than_intervals_and_none_is_missed() -> None:
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)
            self.mid, self.last = nn.Linear(6 * 36, 30), nn.Linear(30, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.norm(self.conv(x))).flatten(1)
            return self.last(F.relu(self.mid(x)))

    network, x, threat = Net(), torch.rand(70, 1, 8, 8), ThreatModel.box("linf", 0.03)
    ibp, crown = (unstable_relus(network, x, threat, m) for m in ("ibp", "crown"))
    assert network.training
    assert [layer.neurons for layer in ibp.layers] == [216, 30]
    assert [layer.name for layer in ibp.layers] == ["", "#2"]
    assert 0 < crown.unstable < ibp.unstable < 1
    network.eval()
    with torch.no_grad():  # neurons that are seen with both signs
        noise = (torch.rand(200, *x.shape) * 2 - 1) * 0.03
        seen = network.norm(network.conv((x + noise).clamp(0, 1).flatten(0, 1)))
        seen = seen.unflatten(0, (200, 70))
        both = (seen.amin(0) < 0) & (seen.amax(0) > 0)
    assert float(both.double().mean()) <= crown.layers[0].unstable


def test_what_cannot_be_counted_is_an_error_of_one_line() -> None:
    x, threat = torch.rand(1, 2), ThreatModel.box("linf", 0.1)
    with pytest.raises(ValueError, match="no ReLU"):
        unstable_relus(nn.Linear(2, 2), x, threat)
    with pytest.raises(ValueError, match="ibp, crown"):
        unstable_relus(nn.Linear(2, 2), x, threat, "crwon")  # type: ignore[arg-type]
