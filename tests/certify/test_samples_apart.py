"""Samples of a batch are told apart, whatever a forward does with the batch in between."""

from __future__ import annotations

import pytest
import torch
from bound_nets import Fn
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.threat import ThreatModel
from certify.errors import UnsupportedError
from certify.methods import Certifier
from certify.trace import trace_model

PARTS, WIDTH, EPS = 3, 4, 0.3
THREAT = ThreatModel.box("linf", EPS)


def layers() -> nn.Module:
    torch.manual_seed(1)
    return nn.ModuleDict(
        {
            "first": nn.Linear(WIDTH, 6),
            "second": nn.Linear(6, 6),
            "last": nn.Linear(6 * PARTS, 3),
            "alone": nn.Linear(6, 3),
        }
    )


def merged(x: Tensor, m: nn.Module) -> Tensor:
    h = F.relu(m.first(x.reshape(-1, WIDTH)))
    return m.last(F.relu(m.second(h)).reshape(len(x), -1))


def transposed(x: Tensor, m: nn.Module) -> Tensor:
    h = F.relu(m.first(x.transpose(0, 1)))
    return m.last(F.relu(m.second(h)).transpose(0, 1).flatten(1))


def last(x: Tensor, m: nn.Module) -> Tensor:
    h = F.relu(m.first.weight @ x[:, 0].t())
    return m.alone(F.relu(m.second.weight @ h).t())


def joined(x: Tensor, m: nn.Module) -> Tensor:
    h = F.relu(m.first(torch.cat([x[:, 0], 2 * x[:, 1]])))
    a, b = F.relu(m.second(h)).chunk(2)
    return m.alone(a) - m.alone(b)


def transposed_where_all_are_zero(x: Tensor, m: nn.Module) -> Tensor:
    h = F.relu(m.first(x.transpose(0, 1)).abs() - 1e6)
    return m.last(F.relu(m.second(h + 1)).transpose(0, 1).flatten(1)) + m.alone(m.first(x[:, 0]))


MODELS = [merged, transposed, last, joined, transposed_where_all_are_zero]


@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown", "alpha-crown", "complete"])
@pytest.mark.parametrize("forward", MODELS)
def test_a_batch_is_bounded_as_its_samples_one_by_one(forward, method):
    model = Fn(forward, layers()).eval()
    torch.manual_seed(0)
    # samples unlike each other: the bounds of another would not hold
    x = torch.rand(7, PARTS, WIDTH) * torch.tensor([0.1, 1, 0.5, 0.1, 0.9, 0.02, 1])[:, None, None]
    y, prover = model(x).argmax(1), Certifier(model, x)
    found = prover.certify(method, x, y, torch.arange(7), THREAT)
    alone = [
        prover.certify(method, x[i : i + 1], y[i : i + 1], torch.tensor([i]), THREAT)
        for i in range(7)
    ]
    assert found.outcome == tuple(one.outcome[0] for one in alone)
    assert torch.allclose(found.lower, torch.cat([one.lower for one in alone]), 1e-3, 1e-4)
    corners = x + EPS * torch.randint(0, 2, (500, *x.shape)).mul(2).sub(1)
    corners = corners.clamp(0, 1)
    outputs = model(corners.flatten(0, 1)).view(500, 7, 3)
    wrong = F.one_hot(y, 3).bool()
    margin = (
        outputs.gather(2, y.expand(500, 7)[..., None])[..., 0]
        - outputs.masked_fill(wrong, -torch.inf).amax(2)
    ).amin(0)
    for i, outcome in enumerate(found.outcome):
        assert outcome != "certified" or margin[i] > 0
    assert bool((margin >= found.lower).all())


@pytest.mark.parametrize("forward", MODELS)
def test_where_the_batch_is_not_first_is_known(forward):
    model = Fn(forward, layers()).eval()
    graph = trace_model(model, torch.rand(2, PARTS, WIDTH))
    relus = [n.index for n in graph.nodes if n.op is torch.ops.aten.relu.default]
    assert relus
    assert all(i in graph.apart for i in relus) == (forward is merged)
    assert graph.output in graph.apart


def test_numbers_by_the_place_in_the_batch_are_refused():
    def placed(x: Tensor, m: nn.Module) -> Tensor:
        steps = torch.arange(2 * len(x)).view(2, -1).float()[:, :1]  # 0 and the batch size
        return m.alone(m.first(x[:, 0])) + 0 * steps.sum()

    def repeated(x: Tensor, m: nn.Module) -> Tensor:
        return m.alone(m.first(x[:, 0])) + torch.zeros(len(x), 3)

    Certifier(Fn(repeated, layers()).eval(), torch.rand(2, PARTS, WIDTH))
    with pytest.raises(UnsupportedError):
        Certifier(Fn(placed, layers()).eval(), torch.rand(2, PARTS, WIDTH))


def test_a_model_has_to_return_one_tensor():
    pair = Fn(lambda x, m: (m.first(x), x), layers()).eval()
    with pytest.raises(UnsupportedError, match="one tensor"):
        trace_model(pair, torch.rand(2, PARTS, WIDTH))
