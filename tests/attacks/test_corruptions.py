"""Common corruptions: legal, the same in any company, worse with severity, and what they say."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from attacks import corruptions
from attacks.classifier import TiledClassifier
from attacks.corruption_kinds import KIND, KINDS, KindName
from attacks.corruptions import SEVERITIES, corrupt, corruption_accuracy, kinds_for
from attacks.errors import AttackError
from robustbench_c.data import load

ZERO, ONE = torch.tensor(0.0), torch.tensor(1.0)
RANDOM = {kind for kind in KINDS if "noise" in kind} | {
    "glass-blur",
    "motion-blur",
    "snow",
    "frost",
    "fog",
    "spatter",
    "elastic",
}


def pictures(n: int, channels: int, height: int, width: int) -> Tensor:
    """Backgrounds with some texture, and sharp bright and dark stripes."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, channels, 3, 3, generator=generator)
    x = 0.7 * nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    x += 0.3 * torch.rand(x.shape, generator=generator)
    place = torch.arange(n)[:, None, None, None]
    rows = (torch.arange(height)[:, None] + 3 * place) % height
    columns = (torch.arange(width) + 5 * place) % width
    x = torch.where(rows < height // 4, 0.9, x)
    return torch.where(columns < width // 5, 0.05, x)


def close(one: Tensor, two: Tensor) -> bool:
    return bool((one - two).abs().max() < 1e-6)


def spoil(x: Tensor, kind: KindName, severity: int = 3, seed: int = 0, box=(ZERO, ONE)) -> Tensor:
    return corrupt(x, kind, severity, 3 * torch.arange(len(x)), seed, *box)


def check_worse(x: Tensor, kind: KindName) -> None:
    apart = [float((spoil(x, kind, s) - x).abs().mean()) for s in SEVERITIES]
    assert apart[0] > 0.002, apart
    assert all(less * 1.05 < more for less, more in pairwise(apart)), apart


def check_company(kind: KindName) -> None:
    x, ids = pictures(40, 3, 10, 13), torch.arange(40) * 7
    whole = corrupt(x, kind, 4, ids, 1, ZERO, ONE)
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(3))[:9]
    assert torch.equal(corrupt(x[rows], kind, 4, ids[rows], 1, ZERO, ONE), whole[rows])


@pytest.mark.parametrize("kind", KINDS)
def test_severity_is_monotone(kind):
    check_worse(pictures(8, 3, 32, 24), kind)
    if kind != "saturate":
        check_worse(torch.as_tensor(load("fashion-mnist-mini").x[:16]), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_comes_out_the_same_in_any_company(kind):
    check_company(kind)
    x = pictures(3, 3, 12, 12)
    again, other = spoil(x, kind), spoil(x, kind, seed=1)
    assert torch.equal(spoil(x, kind), again)
    assert torch.equal(other, again) == (kind not in RANDOM)
    same = spoil(x[:1].expand(2, -1, -1, -1), kind)
    assert torch.equal(same[0], same[1]) == (kind not in RANDOM), "each sample has its own noise"


@pytest.mark.parametrize("kind", KINDS)
def test_any_size_and_any_box(kind):
    for shape in ((3, 8, 8), (2, 5, 11), (1, 2, 3)):
        if kind not in kinds_for(shape):
            continue
        x = pictures(2, shape[0], *shape[1:])
        span = torch.linspace(0.5, 90.0, x[0].numel()).view(shape)
        lower, upper = -span, 2 * span
        scaled = torch.minimum(torch.maximum(x * (upper - lower) + lower, lower), upper)
        found = spoil(scaled, kind, 5, box=(lower, upper))
        assert found.dtype == torch.float32
        assert ((found >= lower) & (found <= upper)).all()
        unit = (found - lower) / (upper - lower)
        # JPEG and impulses jump where a value is rounded; the others are continuous
        apart = (unit - spoil(x, kind, 5)).abs()
        assert float(apart.flatten().quantile(0.9)) < 1e-4


def test_the_noises_have_the_strength_they_say():
    x = torch.full((64, 1, 16, 16), 0.4)
    for severity in (1, 4):

        def strength(kind: KindName, severity: int = severity) -> float:
            return KIND[kind].strengths[severity - 1]

        def spread(kind: KindName, severity: int = severity) -> float:
            return float((spoil(x, kind, severity) - x).std())

        assert spread("gaussian-noise") == pytest.approx(strength("gaussian-noise"), rel=0.05)
        assert spread("speckle-noise") == pytest.approx(0.4 * strength("speckle-noise"), rel=0.05)
        shot = spoil(x, "shot-noise", severity)
        counts = shot * strength("shot-noise")
        assert torch.allclose(counts, counts.round(), atol=1e-4), "photons are whole"
        assert float(shot.mean()) == pytest.approx(0.4, rel=0.02)
        assert spread("shot-noise") == pytest.approx(
            (0.4 / strength("shot-noise")) ** 0.5, rel=0.05
        )
        hit = spoil(x, "impulse-noise", severity)
        for value in (0.0, 1.0):
            share = float((hit == value).double().mean())
            assert share == pytest.approx(strength("impulse-noise") / 2, abs=0.005)
        assert ((hit == 0) | (hit == 1) | (hit == x)).all()
    assert torch.equal(spoil(0 * x, "shot-noise"), 0 * x), "no light, no photons"


def test_what_is_exact_is_exact():
    x = pictures(4, 3, 28, 28)
    assert close(spoil(x, "brightness", 2), (x + 0.16).clamp(max=1))
    mean = x.mean((2, 3), keepdim=True)
    assert close(spoil(x, "contrast", 4), mean + 0.25 * (x - mean))
    grey = x[:, :1].expand(-1, 3, -1, -1)
    assert close(spoil(grey, "saturate", 5), grey)
    blocks = spoil(x, "pixelate", 3)  # half of the pixels: blocks of 2 x 2
    assert close(blocks[..., ::2, ::2], nn.functional.avg_pool2d(x, 2))
    assert close(blocks[..., 1::2, 1::2], blocks[..., ::2, ::2])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "blur" in kind or kind == "elastic"])
def test_blurs_leave_an_even_picture_alone(kind):
    x = torch.full((2, 1, 12, 15), 0.3)
    assert close(spoil(x, kind, 5), x)
    dot = torch.zeros(1, 1, 29, 29)
    dot[..., 14, 14] = 1.0
    if kind in ("gaussian-blur", "defocus-blur", "motion-blur"):
        found = spoil(dot, kind, 5)
        assert float(found.sum()) == pytest.approx(1.0, abs=0.02), "light is kept"
        assert close(found, found.flip(2, 3))


class Bright(nn.Module):
    """Class 1 where the mean of a picture is above 0.75."""

    def forward(self, x: Tensor) -> Tensor:
        above = x.flatten(1).mean(1) - 0.75
        return torch.stack([-above, above], 1)


def test_the_table_counts_what_is_right():
    x = torch.full((6, 1, 8, 8), 0.5)
    x[4:] = 0.9
    y = torch.tensor([0, 0, 0, 0, 1, 0])  # the last is wrong from the start
    classifier = TiledClassifier(Bright().eval())
    kinds: tuple[KindName, ...] = ("brightness", "contrast", "fog")
    result = corruption_accuracy(classifier, x, y, torch.arange(6), 0, ZERO, ONE, kinds)
    assert result.clean.tolist() == [True] * 5 + [False]
    bright = [5 / 6, 5 / 6, 5 / 6, 1 / 6, 1 / 6]  # 0.5 + 0.32 is above 0.75
    assert result.accuracy[0].tolist() == pytest.approx(bright)
    assert result.accuracy[1].tolist() == pytest.approx([5 / 6] * 5)
    assert result.correct.shape == (3, 5, 6)
    assert result.mean_accuracy == pytest.approx(float(result.accuracy.mean()))
    every = corruption_accuracy(classifier, x, y, torch.arange(6), 0, ZERO, ONE)
    assert every.kinds == tuple(kind for kind in KINDS if kind != "saturate")
    assert torch.equal(every.correct[every.kinds.index("brightness")], result.correct[0])


# planted bugs ------------------------------------------------------------------------------------


def test_noise_of_a_place_in_the_batch_is_seen(monkeypatch):
    right = corruptions.stream_keys
    monkeypatch.setattr(
        corruptions,
        "stream_keys",
        lambda seed, name, ids, run: right(seed, name, range(len(ids)), run),
    )
    for kind in ("gaussian-noise", "glass-blur", "motion-blur", "fog"):
        with pytest.raises(AssertionError):
            check_company(kind)
    check_company("contrast")


def test_severities_out_of_order_are_seen(monkeypatch):
    kind = KIND["snow"]
    first, second, *rest = kind.strengths
    monkeypatch.setitem(KIND, "snow", replace(kind, strengths=(second, first, *rest)))
    with pytest.raises(AssertionError):
        check_worse(pictures(8, 1, 28, 28), "snow")


def test_bad_requests_have_one_line():
    x = pictures(1, 1, 8, 8)
    for bad in (("rain", 1, x), ("snow", 6, x), ("snow", 1, x[0]), ("saturate", 1, x)):
        with pytest.raises(AttackError) as error:
            spoil(bad[2], bad[0], bad[1])
        assert "\n" not in str(error.value)
