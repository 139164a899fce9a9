"""Dynamic sparse training: what every update leaves behind, counted."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from certify.sparse import Dynamic, Masks, Position, prunable
from certify.sparse.dynamic import DynamicSettings, renewed
from certify.sparse.schedule import cosine_share, cubic_sparsity

X = torch.rand(32, 6, generator=torch.Generator().manual_seed(1))
Y = (X.sum(1) > 3).long()
STEPS = 60


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 2)
    )


def seeded(purpose: str, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(step + 1000 * len(purpose))


def run(settings: DynamicSettings, watch=None, model: nn.Module | None = None, steps=STEPS):
    model = model or net()
    method = Dynamic(model, settings, seeded)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps):
        before = {name: weight.detach().clone() for name, weight in prunable(model).items()}
        masks = method.masks
        method.begin(Position(step, steps, 10), optimiser)
        if watch and step and method.masks is not masks:
            watch(step, model, method, before, masks)
        method.gradient(lambda: F.cross_entropy(model(X), Y))
        optimiser.step()
        method.stepped()
    return model, method


@pytest.mark.parametrize("regrow", ["gradient", "momentum", "random"])
@pytest.mark.parametrize("allocation", ["global", "uniform", "erk"])
def test_every_update_is_exact_and_what_is_regrown_starts_at_zero(regrow, allocation):
    settings = DynamicSettings(
        sparsity=0.8, allocation=allocation, regrow=regrow, every=7, surplus=2.5, rises=(0.0, 0.5)
    )
    total, grown = 6 * 20 + 20 * 20 + 20 * 2, 0

    def watch(step: int, model: nn.Module, method: Dynamic, before, masks: Masks) -> None:
        nonlocal grown
        sparsity = cubic_sparsity(0.5, 0.8, 0.0, 0.5, step / STEPS)
        for names, kept in method.layout.budget(sparsity, allocation).groups:
            assert sum(method.masks.counts()[name] for name in names) == kept
        assert method.history[-1].kept == method.masks.counts()
        for name, weight in prunable(model).items():
            kept = method.masks.units[name].view(weight.shape)
            was = masks.units[name].view(weight.shape)
            assert bool((weight[~kept] == 0).all())
            assert bool((weight[kept & ~was] == 0).all())
            assert torch.equal(weight[kept & was], before[name][kept & was])
            grown += int((kept & ~was).sum())

    model, method = run(settings, watch)
    assert grown > 20
    pruned = sum(int((~kept).sum()) for kept in method.masks.units.values())
    assert pruned == total - round(0.2 * total)
    if regrow != "random":  # a weight that was grown at random may have no gradient, and stay zero
        assert sum(int((w == 0).sum()) for w in prunable(model).values()) == pruned
    assert {update.step for update in method.history} == {0, 7, 14, 21, 28, 35, 42, 45}


def test_the_same_network_starts_with_the_asked_zeros_and_masks_stay_after_until():
    settings = DynamicSettings(sparsity=0.9, every=10, until=0.5)
    _, method = run(settings)
    assert method.history[0].sparsity == pytest.approx(0.9, abs=1e-3)
    assert [update.step for update in method.history] == [0, 10, 20, 30]


@pytest.mark.parametrize("until", [0.5, 0.75, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 30])
def test_a_run_that_is_too_short_for_the_schedule_ends_as_sparse_as_asked(steps, until):
    settings = DynamicSettings(sparsity=0.8, surplus=2.5, until=until, every=100)
    model, method = run(settings, steps=steps)
    total = sum(w.numel() for w in prunable(model).values())
    pruned = sum(int((~kept).sum()) for kept in method.masks.units.values())
    assert pruned == total - round(0.2 * total)
    assert len(method.history) == min(steps, 2)


def test_gradients_of_pruned_weights_are_seen_and_then_dropped():
    model = net()
    method = Dynamic(model, DynamicSettings(sparsity=0.8), seeded)
    method.begin(Position(0, STEPS, 10), torch.optim.SGD(model.parameters(), lr=0.1))
    twice = 2 * [lambda: F.cross_entropy(model(X), Y)]
    for loss in twice:
        method.gradient(loss)
    dense = torch.autograd.grad(F.cross_entropy(model(X), Y), list(prunable(model).values()))
    for (name, weight), wanted in zip(prunable(model).items(), dense, strict=True):
        kept = method.masks.full_masks[name]
        assert bool((weight.grad[~kept] == 0).all())
        assert torch.allclose(weight.grad[kept], wanted[kept])
        assert torch.allclose(method.state()["gradients"][name], 2 * wanted)


def test_units_are_grown_where_the_gradient_is_largest():
    kept = {"w": torch.tensor([True, True, True, False, False, False])}
    sizes = {"w": torch.tensor([3.0, 1.0, 2.0, 0.0, 0.0, 0.0])}
    growth = {"w": torch.tensor([9.0, 9.0, 9.0, 0.1, 0.3, 0.2])}
    assert renewed(kept, sizes, growth, 3, 0.4)["w"].tolist() == [1, 0, 1, 0, 1, 0]
    assert renewed(kept, sizes, growth, 2, 0.0)["w"].tolist() == [1, 0, 1, 0, 0, 0]
    assert renewed(kept, sizes, growth, 5, 0.0)["w"].tolist() == [1, 1, 1, 0, 1, 1]
    assert renewed(kept, sizes, growth, 3, 1.0)["w"].tolist() == [0, 0, 0, 1, 1, 1]


def test_channels_move_as_one():
    model = nn.Sequential(nn.Conv2d(1, 10, 2), nn.Flatten(), nn.ReLU(), nn.Linear(20, 2))
    images = nn.Sequential(nn.Unflatten(1, (1, 2, 3)), model)
    settings = DynamicSettings(sparsity=0.5, structure="channels", allocation="uniform", every=5)
    trained, method = run(settings, model=images)
    weights = prunable(trained)
    conv, last = weights["1.0.weight"], weights["1.3.weight"]
    assert int((~method.masks.units["1.0.weight"]).sum()) == 5
    assert int((~method.masks.units["1.3.weight"]).sum()) == 10
    for weight, name, axis in ((conv, "1.0.weight", 0), (last, "1.3.weight", 1)):
        pruned = ~method.masks.units[name]
        assert bool((weight.movedim(axis, 0)[pruned] == 0).all())
    assert bool((trained[1][0].bias[~method.masks.units["1.0.weight"]] == 0).all())
    assert sum(update.grown for update in method.history[1:]) > 0


def test_schedules_are_those_of_their_formulas():
    assert cubic_sparsity(0.2, 0.9, 0.1, 0.6, 0.05) == pytest.approx(0.2)
    assert cubic_sparsity(0.2, 0.9, 0.1, 0.6, 0.35) == pytest.approx(0.9 - 0.7 / 8)
    assert cubic_sparsity(0.2, 0.9, 0.1, 0.6, 0.6) == 0.9
    assert [cosine_share(0.4, 0.8, d) for d in (0.0, 0.4, 0.8)] == pytest.approx([0.4, 0.2, 0.0])


@pytest.mark.parametrize(
    "wrong", [{"surplus": 0.5}, {"rises": (0.5, 0.5)}, {"rises": (0.0, 0.9)}, {"every": 0}]
)
def test_settings_that_contradict_each_other_are_refused(wrong):
    with pytest.raises(ValueError):
        DynamicSettings(sparsity=0.9, **wrong)
