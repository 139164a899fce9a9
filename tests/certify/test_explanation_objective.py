"""The penalty on boxes of explanations: values in closed form, ramps, modes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from attacks.explanation_measures import Criterion
from attacks.explanations import explain
from attacks.objectives import standard
from certify.explanation_metrics import worst_distance
from certify.interval import Interval
from certify.training import explanation_box, ibp
from certify.training.explanation import least_cosine, relative, width

LOWER, UPPER = torch.tensor(0.0), torch.tensor(1.0)
PENALTIES = ("width", "relative", "cosine")


def call(model: nn.Module, x: Tensor, y: Tensor, **changes: Any) -> Tensor:
    given = {"generator": Generator().manual_seed(0), "scale": 1.0, "norm": "linf", "eps": 0.05}
    box = {"lower": LOWER, "upper": UPPER, "alpha": 1.0}
    return explanation_box(model, x, y, **(given | box | changes))


def zero(model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator, scale: float) -> Tensor:
    return torch.zeros(())


def net(norm: bool = False, dtype: torch.dtype = torch.float32) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        extra = [nn.BatchNorm1d(8), nn.Dropout(0.5)] if norm else []
        return nn.Sequential(
            nn.Linear(6, 8), *extra, nn.Softplus(3.0), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3)
        ).to(dtype)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(16, 6, generator=Generator().manual_seed(1)), torch.arange(16) % 3


def logits(first: float, second: float) -> nn.Module:
    """`first * relu(x) + second * relu(x - 0.5)` as the logit of class 0; the other is -1."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [1.0]]))
        model[0].bias.copy_(torch.tensor([0.0, -0.5]))
        model[2].weight.copy_(torch.tensor([[first, second], [0.0, 0.0]]))
        model[2].bias.copy_(torch.tensor([0.0, -1.0]))
    return model


def test_values_in_closed_form() -> None:
    model, x, y = logits(2.0, 3.0), torch.tensor([[0.5]]), torch.tensor([0])
    plain = F.cross_entropy(model(x), y)
    # within 0.1 the gradient is 2 or 5: width 3, radius 1.5, center 3.5; it is 2 at the sample
    expected = {"width": 3.0, "relative": math.log1p(1.5 / 3.5), "cosine": 1 - 2 / 5}
    for penalty, value in expected.items():
        found = call(model, x, y, eps=0.1, penalty=penalty, alpha=0.7)
        assert float((found - plain).detach()) == pytest.approx(0.7 * value, rel=1e-5)
    # weights within 10 %, at no distance
    found = call(model, x + 0.2, y, eps=0.0, penalty="width", gamma=0.1)
    spread = 5 * 2 * (0.1 + 0.1 + 0.1 * 0.1)  # Rump's product; the vertices span 5 * 0.4
    assert float((found - F.cross_entropy(model(x + 0.2), y)).detach()) == pytest.approx(
        spread, rel=1e-4
    )


def test_what_no_eps_moves_costs_nothing(batch) -> None:
    model, (x, y) = net(), batch
    plain = standard(model, x, y, generator=Generator(), scale=1.0)
    for penalty in PENALTIES:
        for change in ({"eps": 0.0}, {"scale": 0.0}, {"alpha": 0.0}):
            torch.testing.assert_close(
                call(model, x, y, penalty=penalty, **change), plain, rtol=1e-4, atol=1e-4
            )


def test_shrinking_gradients_wins_nothing_but_for_the_width(batch) -> None:
    model, (x, y) = net(), batch

    def penalty(name: str) -> float:
        return float(call(model, x, y, penalty=name, base=zero).detach())

    before = {name: penalty(name) for name in PENALTIES}
    with torch.no_grad():
        for part in (model[-1].weight, model[-1].bias):
            part.mul_(0.01)
    assert penalty("width") == pytest.approx(before["width"] / 100, rel=1e-4)
    for name in ("relative", "cosine"):
        assert penalty(name) == pytest.approx(before[name], rel=1e-4)


def test_the_cosine_is_below_every_one_of_the_box_and_below_the_certificate() -> None:
    generator = Generator().manual_seed(3)
    v = torch.randn(50, 9, generator=generator, dtype=torch.float64)
    reach = torch.rand(50, 1, generator=generator, dtype=torch.float64) * 1.5
    box = Interval(
        v - reach * torch.rand(v.shape, generator=generator),
        v + reach * torch.rand(v.shape, generator=generator),
    )
    bound = least_cosine(v, box)
    for _ in range(200):
        w = torch.where(torch.rand(v.shape, generator=generator) < 0.5, box.lower, box.upper)
        assert (F.cosine_similarity(v, w) >= bound - 1e-12)[bound > 0].all()
    certified = 1 - worst_distance(Criterion("cosine", 0.1), v, box)
    assert (bound <= certified + 1e-6)[bound > 0].all()
    assert (bound > 0.9).any()
    assert (bound < 0).any()


def test_ratio_and_width_of_boxes() -> None:
    box = Interval(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[3.0, 2.0], [0.0, 0.0]]))
    assert width(box).tolist() == [2.0, 0.0]
    assert relative(box)[0] == pytest.approx(math.log1p(1 / math.sqrt(8)))
    assert relative(box)[1] == 0


def test_ramps_and_share(batch) -> None:
    model, (x, y) = net(), batch
    plain = standard(model, x, y, generator=Generator(), scale=1.0)
    half = call(model, x, y, scale=0.5, eps=0.04, gamma=0.02, alpha=0.8, alpha_start=0.2) - plain
    whole = call(model, x, y, eps=0.02, gamma=0.01, alpha=0.5) - plain
    torch.testing.assert_close(half, whole)
    some = call(model, x, y, share=0.25) - plain
    part = call(model, x[:4], y[:4]) - F.cross_entropy(model(x[:4]), y[:4])
    torch.testing.assert_close(some, part)
    one = call(model, x, y, share=0.01) - plain
    torch.testing.assert_close(
        one, call(model, x[:1], y[:1]) - F.cross_entropy(model(x[:1]), y[:1])
    )


def test_it_is_added_to_any_base(batch) -> None:
    model, (x, y) = net(), batch

    def base(
        model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator, scale: float
    ) -> Tensor:
        bounds = {"norm": "linf", "eps": 0.1, "lower": LOWER, "upper": UPPER}
        return ibp(model, x, y, generator=generator, scale=scale, **bounds)

    plain = standard(model, x, y, generator=Generator(), scale=1.0)
    other = base(model, x, y, generator=Generator(), scale=0.5)
    expected = call(model, x, y, scale=0.5) - plain + other
    torch.testing.assert_close(call(model, x, y, scale=0.5, base=base), expected)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_gradients_are_those_of_finite_differences(batch, penalty) -> None:
    model, x, y = net(dtype=torch.float64), batch[0][:3].double(), batch[1][:3]
    settings = {"penalty": penalty, "gamma": 0.01, "eps": 0.01}
    weights = list(model.parameters())
    gradients = torch.autograd.grad(call(model, x, y, **settings), weights)
    generator = Generator().manual_seed(2)
    for _ in range(3):
        moves = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]
        expected = sum(float((g * m).sum()) for g, m in zip(gradients, moves, strict=True))
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                for weight, move in zip(weights, moves, strict=True):
                    weight.add_(move, alpha=step)
                ends.append(float(call(model, x, y, **settings).detach()))
                for weight, move in zip(weights, moves, strict=True):
                    weight.sub_(move, alpha=step)
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_batch_norm_and_dropout_are_as_in_eval_mode(batch, penalty) -> None:
    model, (x, y) = net(norm=True).train(), batch
    statistics = model[1].running_mean.clone()
    modes = [part.training for part in model.modules()]
    trained = call(model, x, y, penalty=penalty, base=zero)
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(model[1].running_mean, statistics)
    torch.testing.assert_close(trained, call(model.eval(), x, y, penalty=penalty, base=zero))
    call(model.train(), x, y, penalty=penalty).backward()
    assert not torch.equal(model[1].running_mean, statistics)
    assert bool(model[0].weight.grad.any())


@pytest.mark.parametrize("penalty", PENALTIES)
def test_training_makes_explanations_certain(batch, penalty) -> None:
    model, (x, y) = net(), batch

    def certain() -> float:
        return float(call(model, x, y, penalty="cosine", base=zero).detach())

    before, optimiser = certain(), torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        optimiser.zero_grad()
        call(model, x, y, penalty=penalty, base=zero).backward()
        optimiser.step()
    assert certain() < 0.7 * before
    assert bool(explain(model, x, model(x).argmax(1)).any())
