"""What a box says of an explanation is never exceeded by a point of it, and attained where said."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attacks.errors import AttackError
from attacks.explanation_measures import MEASURES, NORM_ORDERS, Criterion, cosine
from certify.cosine_bound import cosine_slack, least_cosine
from certify.explanation_metrics import box_metrics, worst_distance
from certify.interval import Interval

CRITERIA = [
    *(Criterion(m, relative=r) for m in ("linf", "l2", "l1", "mean") for r in (False, True)),
    Criterion("cosine"),
    *(Criterion("top-k", k=k, signed=s) for k in (1, 2, 4) for s in (False, True)),
    *(
        Criterion(m, k=2, features=f, signed=s)
        for m in ("into-top-k", "out-of-top-k")
        for f in ((0,), (1, 3))
        for s in (False, True)
    ),
]
EXACT = [c for c in CRITERIA if c.measure != "cosine"]
Sample = tuple[Tensor, Interval]
few = settings(max_examples=25, deadline=None, derandomize=True)


@st.composite
def boxes(draw: st.DrawFn, entries: int | None = None, scales: bool = True) -> Sample:
    """Explanations (n, 1, entries) and boxes that hold them: with ties, zeros, and points."""
    entries = entries or draw(st.integers(4, 30))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    kind = draw(st.sampled_from([torch.float32, torch.float64]))
    clean = torch.randn(6, 1, entries, generator=generator, dtype=kind)
    below, above = torch.rand(2, 6, 1, entries, generator=generator, dtype=kind)
    for part in (below, above):
        part *= draw(st.sampled_from([0.01, 0.3, 1.0, 3.0]))
        part *= torch.rand(part.shape, generator=generator) > draw(st.sampled_from([0.0, 0.5]))
    if draw(st.booleans()):  # ties
        clean, below, above = (torch.round(part * 2) / 2 for part in (clean, below, above))
    if draw(st.booleans()):
        clean[0], clean[1] = 0, clean[1].abs() + 1
    if scales:
        clean, below, above = (
            part * draw(st.sampled_from([1.0, 1e-12, 1e9])) for part in (clean, below, above)
        )
    return clean, Interval(clean - below, clean + above)


def points(criterion: Criterion, clean: Tensor, box: Interval, count: int) -> Tensor:
    """Points (count, n, *shape) of a box: random ones, corners, zeros, and led to the far ends."""
    u = torch.rand(count, *clean.shape, dtype=clean.dtype)
    u[::2] = u[::2].round()
    found = box.lower + u * (box.upper - box.lower)
    zero = torch.zeros_like(clean)
    far = torch.where(box.upper - clean > clean - box.lower, box.upper, box.lower)
    away = torch.where(clean > 0, box.lower, box.upper)
    found = torch.cat([found, torch.stack([zero, far, away, -clean, box.lower, box.upper])])
    led = found[:4].double()
    for step in range(6):  # to where the cosine and what is ranked change most
        led.requires_grad_(True)
        wanted = cosine(led.flatten(2).flatten(0, 1), clean.double().flatten(1).repeat(4, 1)).sum()
        if criterion.measure in ("into-top-k", "out-of-top-k"):
            sign = 1 if criterion.measure == "out-of-top-k" else -1
            wanted = sign * led.abs().flatten(2)[..., list(criterion.features)].sum()
        (slope,) = torch.autograd.grad(wanted, led)
        led = led.detach() - slope.sign() * (box.upper - box.lower) * 0.7**step
        led = led.clamp(box.lower, box.upper)
        found = torch.cat([found, led.to(found)])
    return found.clamp(box.lower, box.upper)


def measured(criterion: Criterion, clean: Tensor, found: Tensor) -> Tensor:
    """Distances (count, n) of points."""
    return torch.stack([criterion.distance(clean, point) for point in found])


@pytest.mark.parametrize("criterion", CRITERIA, ids=repr)
@few
@given(boxes())
def test_no_point_is_farther(criterion: Criterion, sample: Sample) -> None:
    clean, box = sample
    bound = worst_distance(criterion, clean, box)
    found = measured(criterion, clean, points(criterion, clean, box, 40))
    assert bool((found <= bound).all())


@pytest.mark.parametrize("criterion", EXACT, ids=repr)
@few
@given(boxes(4, scales=False))
def test_all_but_the_cosine_is_attained(criterion: Criterion, sample: Sample) -> None:
    """At a corner, at zero, or at the end of a tie: every value of 4 entries that matters."""
    clean, box = sample
    corners = [
        torch.where(torch.tensor(bits).view(1, 1, 4), box.upper, box.lower)
        for bits in itertools.product([True, False], repeat=4)
    ]
    # absolute values are smallest at zero
    inner = [c.where(c == box.upper, torch.zeros_like(c).clamp(box.lower, box.upper))
             for c in corners] + [
        c.where(c == box.lower, torch.zeros_like(c).clamp(box.lower, box.upper)) for c in corners
    ]  # fmt: skip
    found = measured(criterion, clean, torch.stack(corners + inner)).amax(0)
    bound = worst_distance(criterion, clean, box)
    assert bool((found <= bound).all())
    values = torch.cat([box.lower, box.upper], 2).abs().flatten(1).sort(1).values
    ties = (values[:, 1:] == values[:, :-1]).any(1) & (criterion.k is not None)
    ties |= bool(criterion.k) & ((box.lower <= 0) & (box.upper >= 0)).flatten(1).any(1)
    exact = ~ties & found.isfinite()
    torch.testing.assert_close(found[exact], bound[exact], rtol=1e-12, atol=1e-12)


@few
@given(boxes())
def test_every_metric_holds(sample: Sample) -> None:
    clean, box = sample
    k = 3
    said = box_metrics(clean, box, k)
    found = points(Criterion("cosine"), clean, box, 40)
    for name in ("linf", "l1", "l2", "mean"):
        far = measured(Criterion(name), clean, found)  # type: ignore[arg-type]
        assert bool((far <= said[f"deviation_{name}"]).all())
    flat = found.flatten(2).double()
    v = clean.flatten(1).double()
    near = torch.stack([cosine(v, w) for w in flat])
    assert bool((near >= said["cosine"] - cosine_slack(v.shape[1])).all())
    assert bool((1 - measured(Criterion("top-k", k=k), clean, found) >= said["top_k"]).all())
    assert bool((flat.abs().amax(2) <= said["sup_norm"]).all())
    assert bool((flat.abs().sum(2) <= said["lipschitz"]).all())
    both = (flat > 0).any(0) & (flat < 0).any(0)
    assert bool((1 - both.double().mean(1) >= said["signs"] - 1e-12).all())
    spread = (flat.amax(0) - flat.amin(0)).amax(1)
    assert bool((spread <= said["width_max"]).all())
    assert bool((said["width_mean"] <= said["width_max"] * (1 + 1e-12)).all())


@pytest.mark.parametrize("criterion", CRITERIA, ids=repr)
@few
@given(boxes(), st.floats(0, 1))
def test_larger_boxes_certify_less(criterion: Criterion, sample: Sample, share: float) -> None:
    clean, box = sample
    inner = Interval(
        torch.lerp(clean, box.lower, share).clamp(min=box.lower),
        torch.lerp(clean, box.upper, share).clamp(max=box.upper),
    )
    small, large = (worst_distance(criterion, clean, b) for b in (inner, box))
    assert bool((small <= large * (1 + 1e-12) + 1e-9).all())  # bisection of the cosine: 1e-9
    if criterion.measure == "linf" and not criterion.relative:
        for name, less in box_metrics(clean, inner, 2).items():
            more = box_metrics(clean, box, 2)[name]
            falls = name in ("cosine", "top_k", "signs")
            less, more = (-less, -more) if falls else (less, more)
            assert bool((less <= more + more.abs() * 1e-9 + 1e-9).all()), name


@few
@given(boxes(8))
def test_the_cosine_is_near_the_corners_least(sample: Sample) -> None:
    """Never above the least over all corners; below by little, and better than the known bound."""
    clean, box = sample
    v, w = clean.double().flatten(1), Interval(*(e.double().flatten(1) for e in _ends(box)))
    bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8))).double()
    corners = torch.where(bits[:, None] > 0, w.upper, w.lower)
    least = torch.stack([cosine(v, corner) for corner in corners]).amin(0)
    bound = least_cosine(v, w)
    assert bool((bound <= least + 1e-15).all())
    product = torch.minimum(v * w.lower, v * w.upper).sum(1)
    long = v.norm(dim=1) * w.magnitude.norm(dim=1)
    assert bool((bound >= (product / long.clamp_min(1e-300)).clamp(-1, 0.0) - 1).all())
    ahead = product > 1e-6 * long
    assert bool((bound >= product / long - 1e-9)[ahead].all())
    assert bool((least - bound <= 0.1)[ahead].all())


def _ends(box: Interval) -> tuple[Tensor, Tensor]:
    return box.lower, box.upper


def test_cosines_behind_are_exact() -> None:
    """Of vectors that may point away, where the least is at no corner."""
    v = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).double()
    lower = torch.tensor([[-2.0, -2.0], [-1.0, 1.0], [0.0, -1.0]]).double()
    upper = torch.tensor([[-1.0, -1.0], [3.0, 2.0], [1.0, 1.0]]).double()
    least = least_cosine(v, Interval(lower, upper))
    exact = torch.tensor([-1.0, -1 / math.sqrt(2), -1 / math.sqrt(2)], dtype=torch.float64)
    torch.testing.assert_close(least, exact, rtol=0, atol=1e-13)


def test_a_zero_explanation_is_a_distance_of_one_away() -> None:
    zero, wide = torch.zeros(1, 4), Interval(-torch.ones(1, 4), torch.ones(1, 4))
    assert worst_distance(Criterion("cosine"), zero, wide) == 1
    assert worst_distance(Criterion("cosine"), zero, Interval.point(zero)) == 1
    assert worst_distance(Criterion("l2", relative=True), zero, wide).isinf()
    ones = torch.ones(1, 4)  # zero is among what it may become
    reached = worst_distance(Criterion("cosine"), ones, Interval(zero, 2 * ones))
    assert reached >= 1


def test_ties_go_the_worse_way() -> None:
    clean = torch.tensor([[3.0, 2.0, 1.0]])
    box = Interval(torch.tensor([[2.0, 2.0, 1.0]]), torch.tensor([[3.0, 2.0, 1.0]]))
    for features in ((0,), (1,)):
        assert worst_distance(Criterion("into-top-k", k=1, features=features), clean, box) == 1
        assert worst_distance(Criterion("out-of-top-k", k=1, features=features), clean, box) == 1
    assert worst_distance(Criterion("top-k", k=1), clean, box) == 1
    assert worst_distance(Criterion("top-k", k=2), clean, box) == 0


@pytest.mark.parametrize("criterion", CRITERIA, ids=repr)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_known(criterion: Criterion, bad: float) -> None:
    clean = torch.tensor([[1.0, -2.0, 3.0, 0.5]]).repeat(4, 1)
    lower, upper = clean - 0.1, clean + 0.1
    lower[0, 1] = bad
    upper[1, 1] = bad
    clean[2, 1] = bad
    found = worst_distance(criterion, clean, Interval(lower, upper))
    assert bool(found[:3].isinf().all())
    assert bool(found[3:].isfinite().all())
    for name, value in box_metrics(clean, Interval(lower, upper), 2).items():
        says_nothing = {"cosine": -1.0, "top_k": 0.0, "signs": 0.0}.get(name, math.inf)
        assert bool((value[:3] == says_nothing).all()), name
        assert bool((value[3:] != says_nothing).all()), name


def test_ends_the_wrong_way_round_are_not_known() -> None:
    clean = torch.ones(1, 4)
    empty = Interval(clean + 1, clean - 1)
    assert all(worst_distance(c, clean, empty).isinf() for c in CRITERIA)


def test_samples_do_not_depend_on_each_other() -> None:
    clean = torch.randn(5, 1, 4)
    box = Interval(clean - torch.rand(5, 1, 4), clean + torch.rand(5, 1, 4))
    for criterion in CRITERIA:
        whole = worst_distance(criterion, clean, box)
        for i in range(5):
            one = Interval(box.lower[i : i + 1], box.upper[i : i + 1])
            alone = worst_distance(criterion, clean[i : i + 1], one)
            torch.testing.assert_close(whole[i : i + 1], alone, rtol=1e-12, atol=1e-12)


def test_every_measure_is_tried_and_wrong_ones_are_turned_away() -> None:
    assert {c.measure for c in CRITERIA} == set(MEASURES)
    assert {c.measure for c in CRITERIA if c.relative} == {*NORM_ORDERS, "mean"}
    box = Interval.point(torch.ones(1, 3))
    with pytest.raises(AttackError, match="no feature 3"):
        worst_distance(Criterion("into-top-k", k=1, features=(3,)), torch.ones(1, 3), box)
    with pytest.raises(AttackError, match="k is 4"):
        box_metrics(torch.ones(1, 3), box, 4)


def _quotient(v: Tensor, box: Interval) -> Tensor:
    """The least product over the largest norm (over the smallest, where it is negative)."""
    least = torch.minimum(v * box.lower, v * box.upper).sum(1)
    most = box.magnitude.norm(dim=1)
    nearest = torch.maximum(box.lower, -box.upper).clamp_min(0).norm(dim=1)
    return (least / (v.norm(dim=1) * torch.where(least >= 0, most, nearest))).clamp(-1, 1)


def _least_found(v: Tensor, box: Interval) -> Tensor:
    """The least cosine over all corners, and over descent from inside."""
    bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=v.shape[1]))).double()
    corners = box.lower[:, None] + bits * (box.upper - box.lower)[:, None]
    again = v.repeat_interleave(len(bits), 0)
    found = cosine(again, corners.flatten(0, 1)).view(len(v), -1).amin(1)
    w = torch.lerp(box.lower, box.upper, torch.rand(v.shape).double())
    for step in range(300):
        w = w.detach().requires_grad_()
        (slope,) = torch.autograd.grad(cosine(v, w).sum(), w)
        w = w.detach() - 0.05 * (box.upper - box.lower) * slope.sign() * (1 - step / 300)
        w = torch.minimum(torch.maximum(w, box.lower), box.upper)
        found = torch.minimum(found, cosine(v, w))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("entries", "width"), [(10, 0.3), (10, 1.0), (784, 0.3), (784, 1.0)])
def test_table_of_cosines(entries: int, width: float) -> None:
    """Prints a row of the table in docs/explanations.md (pytest -s -m slow -k table)."""
    torch.manual_seed(0)
    v = torch.randn(200, entries).double()
    radius = torch.rand(200, entries).double() * width
    box = Interval(v - radius, v + radius)
    bound, quotient = least_cosine(v, box), _quotient(v, box)
    true = _least_found(v, box) if entries <= 10 else None
    shown = "" if true is None else f"true {float(true.mean()):.4f}, "
    print(
        f"{entries} entries, half widths to {width}: {shown}bound {float(bound.mean()):.4f}, "
        f"quotient {float(quotient.mean()):.4f}"
    )
    assert bool((bound >= quotient - 1e-12).all())
    if true is not None:
        assert bool((bound <= true).all())
        assert float((true - bound).mean()) < 1e-3
