"""Samples of a batch are told apart, whatever a forward does with the batch in between."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from bound_nets import ALONE, Fn, alone
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.threat import Norm, ThreatModel
from certify.affine_moves import MOVES
from certify.errors import UnsupportedError
from certify.methods import METHODS, Budget, Certifier
from certify.trace import trace_model

PARTS, WIDTH, EPS = 3, 4, 0.3


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


def rolled_and_small(x: Tensor, m: nn.Module) -> Tensor:
    # so small that a comparison of values sees no difference between samples
    h = F.relu(torch.roll(x * 1e-7, 1, 0) @ m.first.weight.T)
    h = F.relu(h @ m.second.weight.T - 1e-8)
    return m.last((torch.roll(h, -1, 0) * 1e7).flatten(1))


def joined_and_small(x: Tensor, m: nn.Module) -> Tensor:
    h = F.relu(torch.cat([x[:, 0], 1 - x[:, 1]]) * 1e-7 @ m.first.weight.T - 1e-8)
    a, b = F.relu(h @ m.second.weight.T).chunk(2)
    return m.alone((a - b) * 1e7)


def merged_and_scaled(x: Tensor, m: nn.Module) -> Tensor:
    by_part = torch.tensor([1.0, -2.0, 3.0]).repeat(len(x))[:, None]
    h = F.relu(m.first(x.reshape(-1, WIDTH)) * by_part + by_part)
    return m.last(F.relu(m.second(h)).reshape(len(x), -1))


def attending(x: Tensor, m: nn.Module) -> Tensor:
    q = m.first(x).transpose(0, 1)
    scores = torch.einsum("pno,qno->npq", q, q)
    return m.last(torch.einsum("npq,qno->pno", scores, F.relu(q)).transpose(0, 1).flatten(1))


MODELS = [
    merged,
    transposed,
    last,
    joined,
    transposed_where_all_are_zero,
    rolled_and_small,
    joined_and_small,
    merged_and_scaled,
    attending,
]
CASES = [(name, "linf") for name in METHODS]
CASES += [("crown", "l2"), ("crown", "l1"), ("complete", "l2"), ("complete", "l1")]


def legal(x: Tensor, norm: Norm) -> Tensor:
    """Inputs at the end of the ball, (k, n, *shape)."""
    if norm == "linf":
        moves = torch.randint(0, 2, (500, *x.shape)).mul(2).sub(1).float()
    elif norm == "l2":
        moves = torch.randn(500, *x.shape)
        moves = moves / (1 + 1e-6) / moves.flatten(2).norm(dim=2)[..., None, None]
    else:
        unit = torch.eye(PARTS * WIDTH).view(-1, 1, PARTS, WIDTH).expand(-1, len(x), -1, -1)
        moves = torch.cat([unit, -unit])
    return (x + EPS * moves).clamp(0, 1)


@pytest.mark.parametrize(("method", "norm"), CASES)
@pytest.mark.parametrize("forward", MODELS)
def test_a_batch_is_bounded_as_its_samples_one_by_one(forward, method, norm):
    model = Fn(forward, layers()).eval()
    torch.manual_seed(0)
    # samples unlike each other: the bounds of another would not hold
    x = torch.rand(7, PARTS, WIDTH) * torch.tensor([0.1, 1, 0.5, 0.1, 0.9, 0.02, 1])[:, None, None]
    y, prover = model(x).argmax(1), Certifier(model, x)
    threat, budget = ThreatModel.box(norm, EPS), Budget(subproblems=40)
    found = prover.certify(method, x, y, torch.arange(7), threat, budget)
    alone = [
        prover.certify(method, x[i : i + 1], y[i : i + 1], torch.tensor([i]), threat, budget)
        for i in range(7)
    ]
    assert "error" not in found.outcome, found.detail
    assert found.outcome == tuple(one.outcome[0] for one in alone)
    if method != "complete":  # which stops to raise a bound beyond 0, some a step later
        assert torch.allclose(found.lower, torch.cat([one.lower for one in alone]), 1e-3, 1e-4)
    points = legal(x, norm)
    count = len(points)
    outputs = model(points.flatten(0, 1)).view(count, 7, 3)
    wrong = F.one_hot(y, 3).bool()
    margin = (
        outputs.gather(2, y.expand(count, 7)[..., None])[..., 0]
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
    kept = forward in (merged, merged_and_scaled)
    assert all(i in graph.apart for i in relus) == kept
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


def weakly_rolled(x: Tensor, m: nn.Module) -> Tensor:
    return m.last(F.relu(m.first(x)).flatten(1)) + 1e-6 * x.roll(1, 0)[:, 0, :3]


def rolled_where_the_samples_are_not(x: Tensor, m: nn.Module) -> Tensor:
    return m.last(F.relu(m.first(x)).flatten(1)) + F.relu(x.roll(1, 0) - 2)[:, 0, :3]


def by_sign(x: Tensor, m: nn.Module) -> Tensor:
    """The same for all samples that the trace sees: signs and slopes stop NaN."""
    return m.last(F.relu(m.first(x)).flatten(1)) + 9 * torch.sgn(x.roll(1, 0) - 2)[:, 0, :3]


def by_slope(activation: Callable[[Tensor], Tensor]) -> Callable[[Tensor, nn.Module], Tensor]:
    def forward(x: Tensor, m: nn.Module) -> Tensor:
        slope = torch.func.grad(lambda v: activation(v).sum())(x.roll(1, 0) - 2)
        return m.last(F.relu(m.first(x)).flatten(1)) + 9 * slope[:, 0, :3]

    return forward


def by_place_of_the_largest(x: Tensor, m: nn.Module) -> Tensor:
    largest = torch.func.grad(lambda v: F.max_pool2d(v[:, None], (1, 2)).sum())(x.roll(1, 0))
    return m.last(F.relu(m.first(x)).flatten(1)) + 9 * largest[:, 0, :3]


SLOPES = [F.relu, F.leaky_relu, F.hardtanh, F.elu, F.softplus, F.gelu, F.silu, torch.abs]
STOPPED = [by_sign, by_place_of_the_largest, *map(by_slope, SLOPES)]


@pytest.mark.parametrize("forward", STOPPED)
def test_a_model_that_mixes_samples_by_signs_alone_is_refused(forward):
    x = torch.rand(2, PARTS, WIDTH)
    with pytest.raises(UnsupportedError, match="depends on the others"):
        trace_model(Fn(forward, layers()).eval(), x)


COMPARED = {
    "where": lambda x, y: torch.where(y > 2, 100.0, x),
    "times": lambda x, y: x * (y < 2),
    "fill": lambda x, y: x.masked_fill(y > 2, 3.0),
    "index": lambda x, y: x + torch.eye(3)[(y[:, 0] > 2).long()],
    "largest": lambda x, y: x + torch.zeros_like(x).scatter(1, (y - 2).argmax(1, True), 1.0),
    "whole": lambda x, y: x + (y / 3).int(),
    "all": lambda x, y: x + (y.amax() > 2),
}


@pytest.mark.parametrize("name", COMPARED)
def test_a_model_that_compares_is_refused_by_the_name_of_the_call(name):
    def forward(x: Tensor, m: nn.Module) -> Tensor:
        return COMPARED[name](m.last(F.relu(m.first(x)).flatten(1)), x.roll(1, 0)[:, 0, :3])

    with pytest.raises(UnsupportedError, match="has no rule"):
        trace_model(Fn(forward, layers()).eval(), torch.rand(2, PARTS, WIDTH))


PLACED = {
    "roll": lambda x: x.roll(5, 0),  # at 5 samples it is nothing
    "roll of all": lambda x: x.roll(15 * PARTS * WIDTH),
    "slice": lambda x: torch.cat([x[:6], x[6:].flip(0)]),
    "split": lambda x: torch.cat([part.flip(0).flip(0) for part in x.split(6)]),
    "triangle": lambda x: x + (x[:, 0] @ x[:, 0].T).triu(8).sum(1, keepdim=True)[..., None],
    "window": lambda x: F.conv1d(x.flatten(1).T, torch.eye(12)[..., None].repeat(1, 1, 3),
                                 padding=8, dilation=8).T.reshape(x.shape),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACED)
def test_a_model_that_mixes_samples_in_larger_batches_alone_is_refused(name):
    def forward(x: Tensor, m: nn.Module) -> Tensor:
        return m.last(F.relu(m.first(PLACED[name](x))).flatten(1))

    with pytest.raises(UnsupportedError, match=r"place in the batch|depends on the"):
        trace_model(Fn(forward, layers()).eval(), torch.rand(2, PARTS, WIDTH))


def test_a_model_that_keeps_samples_apart_at_one_batch_size_alone_is_refused():
    def forward(x: Tensor, m: nn.Module) -> Tensor:
        wide = x.repeat(1, 5, 1)
        mixed = wide.reshape(5, -1).roll(1, 1).reshape(wide.shape)  # at 5 samples within each
        return m.last(F.relu(m.first(x)).flatten(1)) + 1e-9 * mixed[:, 0, :3]

    with pytest.raises(UnsupportedError, match="depends on the others"):
        trace_model(Fn(forward, layers()).eval(), torch.rand(2, PARTS, WIDTH))


@pytest.mark.parametrize(("name", "rank"), ALONE)
def test_nothing_with_a_rule_hides_a_sample(name, rank):
    """Each call takes on the mark of what it takes, unless it leaves that out by its place."""
    case = alone(name, rank)
    graph, x = trace_model(case.model, case.x), case.x.clone()
    state = {**dict(case.model.named_parameters()), **dict(case.model.named_buffers())}
    x[1] = torch.nan
    with torch.no_grad():
        found = graph.evaluate({**state, "x": x})
    lost = [
        node.name
        for node in graph.nodes
        if any(torch.is_floating_point(found[i]) and found[i].isnan().any() for i in node.inputs)
        and node.op not in MOVES
        and not found[node.index].isnan().any()
    ]
    assert not lost


@pytest.mark.parametrize("forward", [weakly_rolled, rolled_where_the_samples_are_not])
def test_a_model_that_mixes_samples_is_refused_however_little_it_shows(forward):
    with pytest.raises(UnsupportedError, match="depends on the others"):
        Certifier(Fn(forward, layers()).eval(), torch.rand(2, PARTS, WIDTH))


def test_small_numbers_by_the_place_in_the_batch_are_refused():
    def placed(x: Tensor, m: nn.Module) -> Tensor:
        small = torch.cat([torch.zeros(len(x), 1), torch.full((len(x), 1), 1e-9)]) * 1e9
        a, b = (F.relu(m.first(torch.cat([x[:, 0], x[:, 1]])) * small)).chunk(2)
        return m.alone(a + b)

    with pytest.raises(UnsupportedError, match="place in the batch"):
        Certifier(Fn(placed, layers()).eval(), torch.rand(2, PARTS, WIDTH))


def test_what_is_built_for_one_batch_size_is_a_clear_error():
    def grouped(x: Tensor, m: nn.Module) -> Tensor:
        n, kernels = len(x), m.first.weight[:PARTS, None, :2].repeat(len(x), 1, 1)
        h = F.conv1d(x.reshape(1, n * PARTS, WIDTH), kernels, groups=n * PARTS)
        return m.alone(F.relu(h).view(n, -1)[:, :6])

    def blocks(x: Tensor, m: nn.Module) -> Tensor:
        every = torch.block_diag(*[m.first.weight] * len(x))
        return m.alone(F.linear(x[:, 0].reshape(1, -1), every).view(len(x), -1))

    def rows(x: Tensor, m: nn.Module) -> Tensor:
        return m.first(x.reshape(-1, WIDTH))

    for forward, message in ((grouped, "groups"), (blocks, "batch size"), (rows, "have to be")):
        with pytest.raises(UnsupportedError, match=message):
            Certifier(Fn(forward, layers()).eval(), torch.rand(2, PARTS, WIDTH))
