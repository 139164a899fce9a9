"""Sparsity and cost are counted on the network, not taken from what was asked for."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from certify.sparse.accounting import count


def test_counts_of_a_small_network_by_hand() -> None:
    conv = nn.Conv2d(2, 4, 3, padding=1, groups=2)  # weight 4 x 1 x 3 x 3
    network = nn.Sequential(
        conv, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 5 * 6, 3)
    )
    with torch.no_grad():
        conv.weight.fill_(1.0)[0] = 0.0
        conv.weight[1, 0, 0, 0] = -0.0
        network[4].weight.fill_(2.0)[:, ::2] = 0.0
    found = count(network, torch.rand(7, 2, 5, 6))
    first, last = found.layers
    assert (first.name, first.shape, last.name) == ("0", (4, 1, 3, 3), "4")
    assert (first.weights, first.nonzero_weights) == (36, 26)
    assert (first.macs, first.nonzero_macs) == (36 * 30, 26 * 30)
    assert (last.macs, last.nonzero_macs, last.sparsity) == (360, 180, 0.5)
    assert (first.constant_outputs, first.unused_inputs, last.unused_inputs) == (1, 0, 60)
    assert (found.weights, found.nonzero_weights) == (396, 206)
    assert found.sparsity == pytest.approx(190 / 396, abs=1e-15)
    assert found.parameters == 396 + 4 + 8 + 3
    batch_norm = 4  # its weights are 1, its biases 0
    assert found.nonzero_parameters == 206 + 4 + batch_norm + 3
    assert found.bytes == 4 * (found.parameters + 8) + 8  # running statistics; their count
    told = json.loads(json.dumps(found.to_json()))
    assert told["sparsity"] == found.sparsity
    assert told["layers"][1]["sparsity"] == 0.5


def test_a_shared_layer_counts_its_weights_once_and_its_work_each_time() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
            self.other.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training  # as batch norm and dropout need it
            return self.other(F.relu(self.one(self.one(x))))

    network = Twice()
    found = count(network, torch.rand(1, 4))
    assert network.training
    assert [layer.weights for layer in found.layers] == [16, 0]
    assert [layer.macs for layer in found.layers] == [32, 16]
    assert found.layers[1].sparsity is None
    assert found.weights == 16


def test_a_network_without_layers_has_no_sparsity() -> None:
    found = count(nn.Flatten(), torch.rand(1, 2, 2))
    assert (found.weights, found.sparsity, found.bytes) == (0, None, 0)
