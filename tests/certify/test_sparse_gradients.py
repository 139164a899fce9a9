"""Gradients of the methods that have their own: HYDRA, CrAM+, TSCNC."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from certify.sparse import Cram, Hydra, Masks, Position, Tscnc, prunable
from certify.sparse.cram import renew_statistics
from certify.sparse.gates import mean_gate, open_share, sampled_gate, transformed_l1
from certify.sparse.hydra import first_scores
from certify.sparse.tscnc import condition_term
from tests.certify.sparse_nets import Blobs, draws, steps, tiny, zeros

DATA = Blobs()
TOTAL = 36 + 384 + 12


def make(kind, model=None, **settings):
    model = model or tiny()
    return kind(model, kind.settings_type(**{"sparsity": 0.9, **settings}), draws)


def loss_of(model: nn.Module):
    return lambda: F.cross_entropy(model(DATA.x), DATA.y)


class KeepBest(torch.autograd.Function):
    """Marks the largest entries; its gradient is passed straight through."""

    @staticmethod
    def forward(ctx, sizes: Tensor, count: int) -> Tensor:
        return torch.zeros_like(sizes).index_fill_(0, sizes.topk(count).indices, 1.0)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def test_hydra_scores_get_the_straight_through_gradient():
    method = make(Hydra, allocation="global")
    dense = {n: w.detach().clone() for n, w in prunable(method.model).items()}
    method.begin(Position(0, 10, 5), torch.optim.SGD(method.model.parameters(), 0.1))
    method.backward(loss_of(method.model))
    scores = {n: first_scores(w).requires_grad_() for n, w in dense.items()}
    flat = torch.cat([s.abs().flatten() for s in scores.values()])
    masks = KeepBest.apply(flat, method.budget.kept).split([w.numel() for w in dense.values()])
    used = {n: dense[n] * m.view_as(dense[n]) for n, m in zip(dense, masks, strict=True)}
    fresh = tiny()
    F.cross_entropy(functional_call(fresh, used, (DATA.x,)), DATA.y).backward()
    for name, found in method.score_gradients().items():
        torch.testing.assert_close(found, scores[name].grad)
        assert bool(found.any())


def test_hydra_searches_with_the_dense_weights_then_fixes_the_mask():
    method = make(Hydra, search=0.5, score_rate=0.1)
    before = {n: v.clone() for n, v in method.model.state_dict().items()}
    masks = []
    for step in steps(method, loss_of(method.model), 20):
        masks.append(method.masks)
        assert zeros(method.model) == TOTAL - round(0.1 * TOTAL)
        if step <= 10:
            for name, value in method.model.named_parameters():
                kept = method.masks.full_masks.get(name, torch.tensor(1.0))
                assert torch.equal(value, before[name] * kept), name
    assert masks[0].changes(masks[10]) != (0, 0)
    assert masks[10] is masks[19]
    trained = dict(method.model.named_parameters())
    assert not torch.equal(trained["6.bias"], before["6.bias"])
    assert [update.step for update in method.history] == [0, 10]


def test_hydra_scores_start_in_proportion_to_the_weights():
    weight = torch.tensor([[1.0, -2.0], [0.5, 4.0]])
    expected = math.sqrt(3) * torch.tensor([[0.25, -0.5], [0.125, 1.0]])
    torch.testing.assert_close(first_scores(weight), expected)


class Quadratic(nn.Module):
    """A linear layer whose weight w has the loss w A w / 2."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 1, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[3.0, -1.0, 0.2, 2.0, -0.9, 0.8]]))
        root = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
        self.a = root @ root.T

    def loss(self) -> Tensor:
        w = self.layer.weight[0]
        return w @ self.a @ w / 2


def test_cram_gradient_is_the_formula_on_a_quadratic():
    model = Quadratic()
    method = make(Cram, model, sparsity=0.5, rho=0.1, lighter=())
    w = model.layer.weight[0].detach().clone()
    method.begin(Position(0, 10, 5), torch.optim.SGD(model.parameters(), 0.1))
    value = method.gradient(model.loss)
    first = model.a @ w
    uphill = w + 0.1 * first
    mask = torch.zeros(6).index_fill_(0, uphill.abs().topk(3).indices, 1.0)
    assert not torch.equal(mask.nonzero(), w.abs().topk(3).indices.sort().values[:, None])
    expected = first + mask * (model.a @ (mask * uphill))
    torch.testing.assert_close(model.layer.weight.grad[0], expected)
    assert value == pytest.approx(float(w @ model.a @ w / 2))
    assert torch.equal(model.layer.weight[0], w)


def test_cram_draws_lighter_sparsities_and_leaves_the_statistics_of_the_dense_weights():
    method = make(Cram, sparsity=0.8, lighter=(0.5, 0.9))
    drawn = set()
    for _ in steps(method, loss_of(method.model), 20):
        drawn.add(method.drawn)
        mean = method.model[1].running_mean.clone()
        method.model.train()
        twin = tiny()
        twin.load_state_dict(method.model.state_dict())
        twin(DATA.x)
        method.gradient(loss_of(method.model))
        torch.testing.assert_close(method.model[1].running_mean, twin[1].running_mean)
        assert not torch.equal(mean, twin[1].running_mean)
    assert drawn == {0.5, 0.8}
    assert zeros(method.model) == 0
    pruned = method.settle(method.model, DATA.x)
    assert zeros(pruned) == TOTAL - round(0.2 * TOTAL)
    inner = pruned[0](DATA.x)
    torch.testing.assert_close(pruned[1].running_mean, inner.mean((0, 2, 3)))
    assert pruned[1].momentum == method.model[1].momentum


def test_statistics_are_the_mean_over_batches_of_at_most_250():
    model = nn.Sequential(nn.BatchNorm1d(2))
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    renew_statistics(model, x)
    torch.testing.assert_close(model[0].running_mean, x.mean(0))
    variance = (x[:250].var(0) + x[250:].var(0)) / 2
    torch.testing.assert_close(model[0].running_var, variance)
    assert not model[0].training


def test_tscnc_gradient_is_autograds_through_the_gates(monkeypatch):
    model = tiny().eval()
    method = make(Tscnc, model, penalty=3.0, condition=2.0)
    method.begin(Position(3, 10, 5), torch.optim.SGD(model.parameters(), 0.1))
    weights = {n: w.detach().clone().requires_grad_() for n, w in prunable(model).items()}
    others = {n: w.detach().clone().requires_grad_() for n, w in model.named_parameters()}
    alphas = {n: torch.full_like(w, math.log(9)).requires_grad_() for n, w in weights.items()}
    draw = draws("gates", 3)
    used = {
        n: w * sampled_gate(alphas[n], torch.rand(w.shape, generator=draw))
        for n, w in weights.items()
    }
    loss = F.cross_entropy(functional_call(model, {**others, **used}, (DATA.x,)), DATA.y)
    shares = torch.cat([open_share(alpha).flatten() for alpha in alphas.values()])
    loss = loss + 3.0 * (101 * shares / (100 + shares)).mean()
    last = used["6.weight"]
    loss = loss + 2.0 * torch.log(1e-5 + torch.det(last @ last.T / 2)) ** 2
    loss.backward()
    moved = {}
    monkeypatch.setattr(method._gates, "step", lambda found, rate: moved.update(found))
    value = method.gradient(loss_of(model))
    assert value == pytest.approx(float(loss.detach()), rel=1e-6)
    for name, weight in model.named_parameters():
        wanted = weights[name].grad if name in weights else others[name].grad
        torch.testing.assert_close(weight.grad, wanted)
    for name, alpha in alphas.items():
        torch.testing.assert_close(moved[name], alpha.grad)
        assert torch.equal(weights[name], dict(model.named_parameters())[name])


def test_tscnc_prunes_gated_weights_and_trains_them_on():
    method = make(Tscnc, gates_until=0.5, gate_rate=0.5, penalty=50.0, allocation="global")
    wanted = None
    for step in steps(method, loss_of(method.model), 20):
        if step == 9:
            assert zeros(method.model) == 0
        if step >= 10:
            masks = Masks.best(method.layout, method.magnitudes(), method.budget)
            wanted = wanted or masks
            assert int(sum(m.sum() for m in method.masks.units.values())) == round(0.1 * TOTAL)
    closing = torch.cat([value.flatten() for value in method._gates.values.values()])
    assert bool((closing < math.log(9)).any())
    assert wanted.changes(method.masks) == (0, 0)
    assert zeros(method.settle(method.model, DATA.x)) == TOTAL - round(0.1 * TOTAL)


def test_a_network_without_a_linear_layer_has_no_condition_term():
    with pytest.raises(ValueError, match="needs a linear layer"):
        make(Tscnc, nn.Sequential(nn.Conv2d(1, 4, 3)))


def test_gates_by_hand():
    zero = torch.tensor(0.0)
    assert float(sampled_gate(zero, torch.tensor(0.5))) == pytest.approx(0.5)
    # sigmoid(1.5 log(3)) = 0.838615..., stretched by 1.2 less 0.1
    assert float(sampled_gate(zero, torch.tensor(0.75))) == pytest.approx(0.906338, abs=1e-5)
    assert float(sampled_gate(zero, torch.tensor(0.01))) == 0
    assert float(sampled_gate(zero, torch.tensor(0.99))) == 1
    assert float(mean_gate(torch.tensor(math.log(9)))) == pytest.approx(0.98)
    # sigmoid(-2/3 log(1/11)) = 11^(2/3) / (1 + 11^(2/3))
    assert float(open_share(zero)) == pytest.approx(11 ** (2 / 3) / (1 + 11 ** (2 / 3)))
    assert float(transformed_l1(torch.tensor(0.5), 100)) == pytest.approx(50.5 / 100.5)


def test_open_share_is_how_often_a_gate_is_open():
    noise = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    for alpha in (-2.0, 0.0, 1.0):
        drawn = sampled_gate(torch.tensor(alpha), noise) > 0
        assert float(open_share(torch.tensor(alpha))) == pytest.approx(
            float(drawn.float().mean()), abs=0.01
        )


def test_condition_term_by_hand():
    weight = torch.tensor([[1.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
    # W W^T / 2 = diag(1, 2): the determinant is 2
    assert float(condition_term(weight)) == pytest.approx(math.log(2 + 1e-5) ** 2)
