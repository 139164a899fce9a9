"""The regulariser of stable neurons: by hand, with batch norm, and what it does to bounds."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, nn

from certify.errors import UnsupportedError
from certify.training import ibp, nrs
from certify.training.network import box, intervals, program
from robustbench_c.training.objectives import bind
from tests.certify.sparse_nets import Blobs, tiny

LOWER, UPPER = torch.tensor(0.0), torch.tensor(1.0)
DATA = Blobs()
G = Generator()


def penalty(model: nn.Module, x: torch.Tensor, y: torch.Tensor, **settings) -> torch.Tensor:
    def nothing(model, x, y, *, generator, scale):
        return torch.zeros(())

    chosen = {"scale": 1.0, "weight": 1.0, "base": nothing, **settings}
    return nrs(model, x, y, generator=G, norm="linf", lower=LOWER, upper=UPPER, **chosen)


def test_penalty_by_hand():
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [-2.0]]))
        model[0].bias.copy_(torch.tensor([-0.4, 0.2]))
    x, y = torch.tensor([[0.5], [0.2]]), torch.tensor([0, 1])
    # x in [0.4, 0.6]: [0, 0.2], [-1, -0.6]; x in [0.1, 0.3]: [-0.3, -0.1], [-0.4, 0]
    products = torch.tensor([0.0, 0.6, 0.03, 0.0])
    expected = -torch.tanh(1 + products).mean()
    torch.testing.assert_close(penalty(model, x, y, eps=0.1), expected)
    torch.testing.assert_close(penalty(model, x, y, eps=0.2, scale=0.5), expected)


def test_after_batch_norm_the_product_is_divided_by_the_squared_scale_which_gets_no_gradient():
    model = tiny()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.5, 1.0, 2.0, -1.5]))
        model[1].bias.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    model.eval()
    found = penalty(model, DATA.x, DATA.y, eps=0.05)
    network = program(model, DATA.x)
    values = intervals(network, box(DATA.x, 0.05, LOWER, UPPER))
    relus = [n.inputs[0] for n in network.nodes if n.op is torch.ops.aten.relu.default]
    first, second = (values[source] for source in relus)
    fixed = torch.tensor([0.25, 1.0, 4.0, 2.25]).view(1, -1, 1, 1)
    products = [first.lower * first.upper / fixed, second.lower * second.upper]
    expected = -torch.tanh(1 + torch.cat([each.flatten() for each in products])).mean()
    torch.testing.assert_close(found, expected)
    here = torch.autograd.grad(found, [model[1].weight, model[0].weight])
    there = torch.autograd.grad(expected, [model[1].weight, model[0].weight])
    torch.testing.assert_close(here, there)


def test_it_adds_to_its_base_and_minimising_it_makes_neurons_stable():
    settings = {"norm": "linf", "eps": 0.05}
    base = partial(ibp, lower=LOWER, upper=UPPER, **settings)
    model = tiny()
    both = penalty(model, DATA.x, DATA.y, eps=0.05, weight=0.5, base=base)
    alone = base(model, DATA.x, DATA.y, generator=G, scale=1.0)
    extra = penalty(model, DATA.x, DATA.y, eps=0.05, weight=0.5)
    assert float((both - alone).detach()) == pytest.approx(
        float(extra.detach()), abs=0.02
    )  # statistics move between
    objective = bind(
        "nrs",
        {**settings, "weight": 1.0, "base": {"name": "ibp", "settings": settings}},
        LOWER,
        UPPER,
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    before = float(penalty(model, DATA.x, DATA.y, eps=0.05).detach())
    for _ in range(10):
        optimiser.zero_grad()
        objective(model, DATA.x, DATA.y, generator=G, scale=1.0).backward()
        optimiser.step()
    assert float(penalty(model, DATA.x, DATA.y, eps=0.05).detach()) < before - 0.05


def test_a_network_without_relus_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    with pytest.raises(UnsupportedError, match="the model has none"):
        penalty(model, DATA.x, DATA.y, eps=0.05)


def test_without_a_base_it_is_added_to_cross_entropy():
    model = tiny().eval()
    found = nrs(
        model, DATA.x, DATA.y, generator=G, scale=1.0, norm="linf", eps=0.05, weight=0.0,
        lower=LOWER, upper=UPPER,
    )  # fmt: skip
    torch.testing.assert_close(found, F.cross_entropy(model(DATA.x), DATA.y))
