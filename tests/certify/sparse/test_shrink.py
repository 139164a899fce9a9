"""Deploying a pruned network really works: it gets smaller, and its logits stay as they are.

The released code of the published method fails here, with a name that it does not define.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from certify.errors import UnsupportedError
from certify.sparse.shrink import shrink

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def mlp() -> nn.Module:
    body = nn.Sequential(nn.Linear(64, 12), nn.Tanh(), nn.Dropout(), nn.Linear(12, 10), nn.ReLU())
    return nn.Sequential(nn.Flatten(), body, nn.Linear(10, 3))


def cnn() -> nn.Module:
    """Convolutions without padding, pools, and a flatten."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.Softplus(), nn.AvgPool2d(2), nn.Conv2d(8, 6, 2), nn.GELU()),
        *(nn.MaxPool2d(2, padding=1, ceil_mode=True), nn.Flatten(), nn.Linear(24, 3)),
    )


def cnn_bn() -> nn.Module:
    """As CNN7: padding, stride, batch norm of channels and of neurons."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        *(nn.Conv2d(8, 10, 3, stride=2, padding=1), nn.BatchNorm2d(10), nn.ReLU()),
        *(nn.Flatten(), nn.BatchNorm1d(160), nn.Linear(160, 9), nn.BatchNorm1d(9), nn.ReLU()),
        nn.Linear(9, 3),
    )


def pruned(make: Callable[[], nn.Module], seed: int = 1) -> nn.Module:
    """With dead and constant channels in every hidden layer, and what is left random."""
    torch.manual_seed(seed)
    model = make().eval()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.weight.normal_()
                part.bias.normal_()
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
        for layer, after in itertools.pairwise(layers):
            width = len(layer.weight)
            layer.weight.mul_(3)
            layer.weight[[1, 2, 3]] = 0.0  # constant, with whatever bias
            after.weight.view(len(after.weight), width, -1)[:, [3, 5]] = 0.0  # dead
    return model


def agree(one: nn.Module, other: nn.Module, x: Tensor, tolerance: float) -> None:
    wanted = one(x).detach()
    assert float((wanted - other(x)).detach().abs().max()) <= tolerance * float(wanted.abs().max())
    assert float(wanted.std(0).min()) > 1e-3  # not because nothing is left


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("make", "widths"), [(mlp, [8, 6, 3]), (cnn, [4, 2, 3]), (cnn_bn, [5, 6, 5, 3])]
)
def test_deploy_really_works(
    make: Callable[[], nn.Module], widths: list[int], dtype: torch.dtype
) -> None:
    model = pruned(make).to(dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = shrink(model)
    x = torch.rand(32, 1, 8, 8, dtype=dtype) * 4 - 2
    agree(model, small, x, TOLERANCE[dtype])
    layers = [m for m in small.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert [len(layer.weight) for layer in layers] == widths
    assert list(small.state_dict()) == list(before) or make is cnn_bn  # a bias may be new
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.dtype == dtype for p in small.parameters())


def test_padding_keeps_one_constant_channel_for_all() -> None:
    model = nn.Sequential(nn.Conv2d(1, 5, 1), nn.ReLU(), nn.Conv2d(5, 2, 3, padding=1))
    with torch.no_grad():
        model[0].weight[:3] = 0.0
        model[0].bias.copy_(torch.tensor([0.5, 2.0, -1.0, 0.1, 0.1]))  # the third is 0 after ReLU
    small = shrink(model)
    assert small[0].out_channels == small[2].in_channels == 3
    agree(model, small, torch.rand(4, 1, 6, 6), 1e-5)
    circular = nn.Sequential(*model[:2], nn.Conv2d(5, 2, 3, padding=1, padding_mode="circular"))
    assert shrink(circular)[0].out_channels == 2
    agree(circular, shrink(circular), torch.rand(4, 1, 6, 6), 1e-5)


def test_a_zero_scale_of_batch_norm_makes_a_constant_channel() -> None:
    model = pruned(cnn_bn)
    with torch.no_grad():
        model[9].weight[4] = 0.0
    small = shrink(model)
    assert small[8].out_features == 4
    agree(model, small, torch.rand(8, 1, 8, 8), 1e-5)


def test_what_is_removed_lets_more_be_removed_until_nothing_can_be() -> None:
    layers = [nn.Linear(4, 4) if i % 2 == 0 else nn.ReLU() for i in range(6)]
    model = nn.Sequential(*layers, nn.Linear(4, 2))
    with torch.no_grad():
        model[6].weight[:, 0] = 0.0  # kills a neuron, the only reader of one before, and so on
        model[4].weight[1:, 1] = 0.0
        model[2].weight[0, :], model[2].weight[2:, 2] = 0.0, 0.0
    small = shrink(model)
    again = shrink(small)
    assert [small[i].out_features for i in (0, 2, 4, 6)] == [3, 2, 3, 2]
    assert [p.shape for p in again.parameters()] == [p.shape for p in small.parameters()]
    agree(model, small, torch.randn(9, 4), 1e-5)


def test_a_network_that_is_constant_keeps_one_neuron_a_layer() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        model[0].weight.zero_()
    small = shrink(model)
    assert [small[i].out_features for i in (0, 2, 4)] == [1, 1, 2]
    assert torch.allclose(model(torch.rand(3, 4)), small(torch.rand(3, 4)))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(torch.relu(self.one(x)))


def test_what_is_not_known_is_kept_or_refused() -> None:
    torch.manual_seed(0)
    parts = (nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), Residual(5), nn.Linear(5, 3))
    model = nn.Sequential(*parts, nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        for part in (parts[0], parts[2], parts[4]):
            part.weight[:2] = 0.0
    small = shrink(model)
    assert [len(p) for p in small.parameters() if p.dim() == 2] == [4, 5, 5, 5, 1, 2]
    agree(model, small, torch.randn(9, 4), 1e-5)
    with pytest.raises(UnsupportedError, match="no chain of layers"):
        shrink(Residual(5))
    twice = nn.Sequential(parts[2], nn.ReLU(), nn.Linear(5, 6), nn.ReLU(), parts[2])
    with pytest.raises(UnsupportedError, match="no chain of layers"):
        shrink(twice)
    rows = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2))
    with torch.no_grad():  # rows of features, one after the other: not channel by channel
        rows[0].weight[:2], rows[3].weight[:, :3] = 0.0, 0.0
    with pytest.raises(UnsupportedError, match="no chain of layers"):
        shrink(rows)


class _Twice(nn.Module):
    """A block that uses a layer of the chain around it."""

    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.shared = shared

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shared(x).relu()


def test_a_layer_that_a_block_uses_as_well_is_left_alone() -> None:
    shared = nn.Linear(6, 6)
    with torch.no_grad():
        shared.weight[2] = 0.0
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), shared, nn.ReLU(), nn.Linear(6, 6))
    model.append(_Twice(shared))
    assert torch.isfinite(model(torch.rand(4, 6))).all()
    with pytest.raises(UnsupportedError):
        shrink(model)


def test_a_pool_over_flattened_features_mixes_channels() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.MaxPool1d(3, 1, 1), nn.Linear(16, 2)
    )
    with torch.no_grad():
        model[0].weight[1] = 0.0
        model[0].bias[1] = 9.0
    with pytest.raises(UnsupportedError):
        shrink(model)
