"""Simple transformations: each does what its name says, and the weakest that breaks is found."""

from __future__ import annotations

import pytest
import torch
from attack_checks import Case, Norm, check_inside, check_same
from torch import Tensor, nn

import attacks.transform_search as search
from attacks.balls import Ball
from attacks.classifier import TiledClassifier
from attacks.driver import recheck
from attacks.errors import AttackError
from attacks.images import from_unit, resample, to_unit
from attacks.result import AttackResult
from attacks.threat import ThreatModel
from attacks.transform_search import TransformConfig, transform_attack, transformations
from attacks.transformations import FAMILIES, FAMILY, FamilyName, transform

ZERO, ONE = torch.tensor(0.0), torch.tensor(1.0)
SMALL = TransformConfig(levels=1, draws=6)


def apply(unit: Tensor, name: FamilyName, strength: float, variant: int = 0) -> Tensor:
    row = FAMILY[name].settings(strength, variant, min(unit.shape[-2:]))
    settings = torch.tensor([row], dtype=torch.float64).expand(len(unit), -1)
    return transform(unit, name, settings, torch.arange(len(unit)) * 7919)


def pictures(n: int = 3, *shape: int) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0)).double()


def test_a_quarter_turn_and_a_shift_move_pixels():
    unit = pictures(3, 2, 9, 9)
    turned = apply(unit, "rotate", 90.0)
    assert ((turned - torch.rot90(unit, -1, (2, 3))).abs() < 1e-9).all()
    up = apply(unit, "shift", 2 / 9, variant=0)
    assert ((up[:, :, :7] - unit[:, :, 2:]).abs() < 1e-9).all()
    assert (up[:, :, 7:].abs() < 1e-9).all(), "from outside comes black"
    rows, columns = torch.zeros(1, 9, 1) + 99.0, torch.arange(9.0)[None, None]
    edge = resample(unit, rows.double(), columns.double())
    assert torch.equal(edge, unit[:, :, -1:].expand_as(unit)), "the edge goes on"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 9, 14)])
def test_strength_is_monotone_from_nothing(name, shape):
    coarse = pictures(4, shape[0], 3, 3)
    smooth = nn.functional.interpolate(coarse, shape[1:], mode="bilinear")
    for variant in range(FAMILY[name].variants):
        changed = [
            (apply(smooth, name, part * FAMILY[name].most, variant) - smooth).abs().mean()
            for part in (0.0, 0.35, 1.0)
        ]
        assert changed[0] < (0.05 if name == "jpeg" else 1e-9)
        assert changed[0] < changed[1] < changed[2], (variant, changed)


def test_units_and_back_are_legal_and_leave_what_does_not_change():
    lower = torch.tensor([[-0.1, 5.0, 2.0]]).expand(1, 1, 3)
    upper = torch.tensor([[0.7, 5.0, 1e3]]).expand(1, 1, 3)
    x = lower + torch.rand(50, 1, 1, 3) * (upper - lower)
    x = torch.minimum(torch.maximum(x, lower), upper)
    unit = to_unit(x, lower, upper)
    assert torch.equal(from_unit(unit, unit, x, lower, upper), x)
    for wild in (unit - 9.0, unit + 9.0, unit * 1.001):
        found = from_unit(wild, unit, x, lower, upper)
        assert ((found >= lower) & (found <= upper)).all()


class Reader(nn.Module):
    """Class 1 where a number read off the input is above `bar`."""

    def __init__(self, read, bar: float) -> None:
        super().__init__()
        self.read, self.bar = read, bar

    def forward(self, x: Tensor) -> Tensor:
        above = self.read(x) - self.bar
        return torch.stack([-above, above], 1)


def attack(read, bar: float, x: Tensor, config: TransformConfig, lower=ZERO, upper=ONE):
    classifier = TiledClassifier(Reader(read, bar).eval())
    y, ids = torch.zeros(len(x), dtype=torch.int64), torch.arange(len(x))
    return transform_attack(classifier, x, y, ids, lower, upper, config, 0)


@pytest.mark.parametrize(
    ("start", "level"), [(0.5, 3), (0.41, 4), (0.39, 5), (0.1, None), (0.8, 0)]
)
def test_the_weakest_brightness_is_found_in_any_box(start, level):
    """A grey input is class 1 from 0.64 on: brighter by 0.06 at each of five levels."""
    config = TransformConfig(levels=5, draws=0, families=("brightness",))
    lower, upper = torch.tensor(-3.0), torch.tensor(7.0)
    x = torch.full((2, 6), 10 * start - 3.0)
    result = attack(lambda z: (z.mean(1) + 3) / 10, 0.64, x, config, lower, upper)
    assert result.broken.tolist() == [level is not None] * 2
    if level is None:
        assert result.share.isinf().all()
        assert result.strength.isinf().all()
        assert (result.queries == 11).all()
        assert torch.equal(result.adversarial, x)
    else:
        assert result.share.tolist() == [level / 5] * 2
        assert result.strength.tolist() == pytest.approx([0.06 * level] * 2)
        assert (result.queries == max(1, 2 * level)).all()
        assert (result.family == (0 if level else -1)).all()


def test_of_the_families_the_first_at_the_weakest_share_is_named():
    """A dot at the centre of 20 x 20: 2 pixels up and it is gone; half the contrast does not."""
    x = torch.zeros(1, 1, 20, 20)
    x[0, 0, 10, 10] = 1.0
    config = TransformConfig(levels=4, draws=0, families=("contrast", "shift"))
    result = attack(lambda z: -z[:, 0, 9:12, 9:12].amax((1, 2)), -0.2, x, config)
    assert result.broken.all()
    assert result.names == ("contrast", "shift", "mix")
    assert (result.names[int(result.family)], float(result.strength)) == ("shift", 0.1)
    config = TransformConfig(levels=4, draws=0, families=("contrast",))
    assert not attack(lambda z: -z[:, 0, 9:12, 9:12].amax((1, 2)), -0.2, x, config).broken.any()


def test_a_mixture_breaks_what_no_family_does_alone():
    """A grey of 0.6 has to reach 0.95: brightness alone gives 0.9, contrast alone 0.83."""
    config = TransformConfig(levels=1, draws=200, families=("contrast", "brightness"))
    result = attack(lambda z: z.mean(1), 0.95, torch.full((5, 4), 0.6), config)
    assert result.broken.all()
    assert (result.family == 2).all()
    assert (result.share == 1.0).all()
    assert len(set(result.queries.tolist())) > 1, "each sample has draws of its own"
    assert (result.queries > 5).all()


# in a norm ball ----------------------------------------------------------------------------------


def run(
    case: Case, config: TransformConfig = SMALL, tiles: tuple[int, ...] = (32,)
) -> AttackResult:
    classifier = TiledClassifier(case.module, tiles)
    return transformations(classifier, case.x, case.y, case.ids, case.threat, config, case.seed)


@pytest.mark.parametrize(("name", "norm"), [("cnn-small", "linf"), ("mlp", "l2"), ("mlp", "l1")])
def test_finds_are_legal_and_do_not_depend_on_company(name, norm: Norm):
    eps = {"linf": 0.1, "l2": 0.4, "l1": 1.0}[norm]
    case = Case.make(name, norm, 60)
    mask = torch.rand(case.x.shape[1:], generator=torch.Generator().manual_seed(1)) < 0.2
    threat = ThreatModel.box(norm, eps, 0.0, 1.0, mask)
    case = Case(case.module, case.x, case.y, case.ids, threat)
    whole = run(case)
    assert 0 < int(whole.found.sum()) < len(case.x)
    check_inside(threat, case.x, whole.adversarial)
    check = recheck(TiledClassifier(case.module), None, case.x, whole.adversarial, case.y, threat)
    assert torch.equal(check.broken, whole.found)
    assert not whole.backwards.any()
    rows = torch.randperm(len(case.x), generator=torch.Generator().manual_seed(2))[:41]
    check_same(whole, run(case.rows(rows)), rows)
    check_same(whole, run(case, tiles=(32, 64)))


def test_two_classes_another_box_and_no_room():
    module = nn.Linear(5, 2).eval().requires_grad_(False)
    x = 6 * torch.rand(40, 5, generator=torch.Generator().manual_seed(0)) - 3
    y = TiledClassifier(module).logits(x).argmax(1)
    for eps, some in ((0.0, False), (0.5, True)):
        case = Case(module, x, y, torch.arange(40), ThreatModel.box("linf", eps, -3.0, 3.0))
        result = run(case)
        check_inside(case.threat, x, result.adversarial)
        assert bool(result.found.any()) == some
        assert (result.forwards[~result.found] == 1 + (2 + 2 + 4) + 6).all()


# planted bugs ------------------------------------------------------------------------------------


def test_candidates_that_leave_the_ball_are_seen(monkeypatch):
    monkeypatch.setattr(Ball, "project", lambda ball, points: points)
    with pytest.raises(AssertionError):
        test_finds_are_legal_and_do_not_depend_on_company("mlp", "l2")


def test_noise_of_a_place_in_the_batch_is_seen(monkeypatch):
    right = search.transform

    def wrong(unit, name, settings, keys):
        return right(unit, name, settings, torch.arange(len(keys)) * 7919)

    monkeypatch.setattr(search, "transform", wrong)
    with pytest.raises(AssertionError, match="differs"):
        test_finds_are_legal_and_do_not_depend_on_company("mlp", "l2")


def test_bad_settings_have_one_line():
    for bad in ({"levels": 0}, {"draws": -1}, {"families": ()}):
        with pytest.raises(AttackError):
            TransformConfig(**bad)
    case = Case.make("mlp", "linf", 3)
    for family in ("rotate", "warp"):
        with pytest.raises(AttackError, match=family):
            run(case, TransformConfig(families=(family,)))
