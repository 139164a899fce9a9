"""Budgets and masks: counted to the unit, for any shapes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from certify.sparse import Layout, Masks, allocate, prunable
from certify.sparse.moments import renew_moments


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(),
        nn.Linear(8, 3),
    )  # fmt: skip


SHAPES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    shapes=SHAPES, sparsity=st.floats(0, 0.99), how=st.sampled_from(["global", "uniform", "erk"])
)
def test_budgets_keep_exactly_what_the_sparsity_leaves(shapes, sparsity, how):
    named = {str(i): shape for i, shape in enumerate(shapes)}
    total = round((1 - sparsity) * sum(math.prod(s) for s in shapes))
    axes = dict.fromkeys(named)
    if total < len(shapes):
        with pytest.raises(ValueError, match="each needs one"):
            allocate(named, axes, sparsity, how)
        return
    budget = allocate(named, axes, sparsity, how)
    assert budget.kept == total
    if how != "global":
        for (name,), kept in budget.groups:
            assert 1 <= kept <= math.prod(named[name])


def test_the_sparsity_is_the_share_that_is_pruned_not_kept():
    """The released code of SparseVLR took the budget for the share to prune."""
    for how in ("global", "uniform", "erk"):
        model = net()
        layout = Layout.of(model)
        total = sum(w.numel() for w in prunable(model).values())
        budget = layout.budget(0.9, how)
        masks = Masks.random(model, layout, budget, torch.Generator().manual_seed(0))
        masks.apply(model)
        zeros = sum(int((w == 0).sum()) for w in prunable(model).values())
        assert zeros == total - round(0.1 * total), how
        assert masks.sparsity == pytest.approx(0.9, abs=1 / total)


def test_uniform_and_erk_shares_are_those_of_their_formulas():
    shapes = {"a": (10, 10), "b": (100, 100), "c": (10, 1000)}
    uniform = dict(allocate(shapes, dict.fromkeys(shapes), 0.5, "uniform").groups)
    assert uniform == {("a",): 50, ("b",): 5000, ("c",): 5000}
    # shares 0.2, 0.02 and 0.101; 2,010 units: scaled by 2010 / (20 + 200 + 1010)
    erk = {n: k for (n,), k in allocate(shapes, dict.fromkeys(shapes), 0.9, "erk").groups}
    assert erk == {"a": 33, "b": 327, "c": 1650}
    # 12,060 units: the first layer is full, the others scaled by (12060 - 100) / 1210
    full = {n: k for (n,), k in allocate(shapes, dict.fromkeys(shapes), 0.4, "erk").groups}
    assert full == {"a": 100, "b": 1977, "c": 9983}


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_sparsities_that_are_none_are_refused(sparsity):
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        allocate({"a": (5, 5)}, {"a": None}, sparsity, "erk")


def test_a_network_without_weights_is_refused():
    with pytest.raises(ValueError, match="no linear or convolution layer"):
        Layout.of(nn.Sequential(nn.ReLU())).budget(0.5, "erk")


def test_shared_weights_count_once():
    first = nn.Linear(4, 4)
    second = nn.Linear(4, 4)
    second.weight = first.weight
    assert list(prunable(nn.Sequential(first, second))) == ["0.weight"]


def test_channels_are_filters_and_inputs_and_take_their_biases_along():
    model = net()
    layout = Layout.of(model, "channels")
    budget = layout.budget(0.5, "uniform")
    masks = Masks.best(layout, layout.scores(prunable(model)), budget)
    masks.apply(model)
    conv, hidden, last = model[0], model[4], model[6]
    gone = conv.weight.flatten(1).norm(dim=1) == 0
    assert int(gone.sum()) == 2
    assert torch.equal(conv.bias == 0, gone)
    assert int((hidden.weight.norm(dim=0) == 0).sum()) == 32
    assert int((last.weight.norm(dim=0) == 0).sum()) == 4
    assert bool((hidden.bias != 0).all())


def test_ties_are_broken_by_position_and_counts_stay_exact():
    model = nn.Sequential(nn.Linear(10, 10, bias=False))
    layout = Layout.of(model)
    masks = Masks.best(layout, {"0.weight": torch.ones(100)}, layout.budget(0.7, "erk"))
    assert masks.units["0.weight"].tolist() == [True] * 30 + [False] * 70


def test_moments_of_what_changes_are_forgotten():
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    optimiser = torch.optim.Adam(model.parameters())
    layout = Layout.of(model)
    before = Masks(layout, {"0.weight": torch.tensor([True, True, False, False])})
    after = Masks(layout, {"0.weight": torch.tensor([True, False, True, False])})
    weight = model[0].weight
    first, second = torch.ones(2, 2), torch.tensor([[4.0, 9.0], [16.0, 25.0]])
    optimiser.state[weight] = {"step": torch.tensor(1.0), "exp_avg": first, "exp_avg_sq": second}
    renew_moments(optimiser, model, before, after)
    assert first.flatten().tolist() == [1, 0, 0, 0]
    assert second.flatten().tolist() == [4, 0, 4, 0]
