"""Votes under noise: right on a classifier whose probabilities are known, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor, nn

from attacks.classifier import TiledClassifier
from certify import voting
from certify.smoothing import SmoothingConfig
from certify.voting import vote

SIGMA = 0.5


@dataclass
class Halfspace:
    """Class 0 where `direction @ x > 0`, so that P[class 0] is known."""

    distance: float = 0.4

    def __post_init__(self) -> None:
        direction = torch.tensor([0.6, 0.0, -0.8])
        self.module = nn.Linear(3, 2).eval()
        with torch.no_grad():
            self.module.weight.copy_(torch.stack([direction, -direction]))
            self.module.bias.zero_()
        self.point = self.distance * direction

    def votes(self, repeats: int, draws: int) -> np.ndarray:
        """Votes for class 0 in independent repeats."""
        x = self.point.expand(repeats, 3).clone()
        classifier = TiledClassifier(self.module, (256,))
        return vote(classifier, x, torch.arange(repeats), SIGMA, draws, 0, "estimation").counts[
            :, 0
        ]


def test_votes_have_the_known_distribution():
    draws, case = 200, Halfspace()
    p = special.ndtr(case.distance / SIGMA)
    votes = case.votes(1000, draws)
    assert stats.binomtest(int(votes.sum()), 1000 * draws, p).pvalue > 1e-3
    spread = votes.var(ddof=1) / (draws * p * (1 - p))  # no dependence between draws
    assert 999 * spread == pytest.approx(999, abs=4 * np.sqrt(2 * 999))


@pytest.mark.parametrize("distance", [0.0, 0.1, 0.4, 0.9])
def test_radius_of_a_linear_classifier_is_below_the_true_one(distance):
    config = SmoothingConfig(SIGMA, n=200, alpha=0.05)
    radius = config.radius(Halfspace(distance).votes(400, config.n))
    false = int((radius > distance).sum())
    assert stats.binom.sf(false - 1, 400, config.alpha) > 1e-3


def test_radius_approaches_the_true_one():
    gaps = []
    for n in (100, 1000, 20_000):
        radius = SmoothingConfig(SIGMA, n=n).radius(Halfspace(0.4).votes(10, n))
        gaps.append(0.4 - float(radius.mean()))
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] > 0
    assert gaps[2] < 0.02


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def of_net(ids: list[int], tiles=(32,), draws=50, seed=0, purpose="selection") -> dict[int, list]:
    """Votes of each sample; sample i is the same image in any company."""
    x = torch.stack([torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in ids])
    classifier = TiledClassifier(Net().eval(), tiles)
    found = vote(classifier, x, torch.tensor(ids), 1.0, draws, seed, purpose)
    return dict(zip(ids, found.counts.tolist(), strict=True))


def test_votes_depend_on_neither_batch_nor_order_nor_company(monkeypatch):
    ids = [7, 3, 1000, 12, 5, 40]
    whole = of_net(ids)
    assert len({tuple(counts) for counts in whole.values()}) > 3
    assert of_net(ids[::-1]) == whole
    assert of_net(ids, tiles=(32, 64, 128)) == whole
    assert of_net([12]) == {12: whole[12]}
    monkeypatch.setattr(voting, "_NUMBERS", 50)  # less than one sample's noise
    monkeypatch.setattr(voting, "_COPIES_BYTES", 1)
    assert of_net(ids) == whole


def test_votes_depend_on_seed_purpose_and_number():
    whole = of_net([7, 3])
    assert of_net([7, 3], seed=1) != whole
    assert of_net([7, 3], purpose="estimation") != whole
    assert all(sum(counts) == 50 for counts in whole.values())


class Recorder(nn.Module):
    """Keeps every input it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        return torch.stack([x.flatten(1).sum(1), torch.zeros(len(x))], 1)


def inputs(purpose: str, draws: int = 64) -> Tensor:
    """What a classifier is shown of two samples at 0.5."""
    recorder = Recorder().eval()
    classifier = TiledClassifier(recorder, (32,))
    vote(classifier, torch.full((2, 6), 0.5), torch.tensor([0, 1]), 1.0, draws, 0, purpose)
    return torch.cat(recorder.seen)


def test_noise_is_neither_clipped_nor_shared_between_samples_and_draws():
    seen = inputs("selection")
    assert float(seen.min()) < -0.5
    assert float(seen.max()) > 1.5
    assert len(seen.unique()) > 0.99 * seen.numel()
    assert stats.kstest((seen - 0.5).flatten().double().numpy(), "norm").pvalue > 1e-3


def check_separate() -> None:
    """Selection and estimation see no draw in common."""
    shown = [set(inputs(purpose).flatten().tolist()) for purpose in ("selection", "estimation")]
    assert len(shown[0] & shown[1]) < 0.01 * len(shown[0])


class Unsure(nn.Module):
    """Class 0 where the first feature is positive; elsewhere a tie of 0 with 1, or NaN."""

    def __init__(self, doubt: float) -> None:
        super().__init__()
        self.doubt = doubt

    def forward(self, x: Tensor) -> Tensor:
        sure = x[:, 0] > 0
        first = torch.where(sure, 1.0, self.doubt)
        return torch.stack([first, torch.zeros_like(first), torch.zeros_like(first) - 1], 1)


def check_doubt(doubt: float) -> None:
    """Draws in doubt count for no class, in the midst of those that do."""
    classifier = TiledClassifier(Unsure(doubt).eval(), (32,))
    found = vote(classifier, torch.zeros(4, 2), torch.arange(4), 1.0, 400, 0, "estimation")
    assert found.counts[:, 1:].sum() == 0
    assert (found.counts[:, 0] < 260).all()
    assert (found.counts[:, 0] > 140).all()
    assert np.isnan(SmoothingConfig(1.0, n=400).radius(found.counts[:, 0])).all()
    missing = 400 - found.counts[:, 0]
    assert found.not_finite.tolist() == (missing if np.isnan(doubt) else 0 * missing).tolist()


def test_selection_and_estimation_are_separate():
    check_separate()


@pytest.mark.parametrize("doubt", [0.0, torch.nan])
def test_ties_and_nan_count_for_no_class(doubt):
    check_doubt(doubt)


def one_stream(patch: pytest.MonkeyPatch) -> None:
    keys = voting.stream_keys
    patch.setattr(voting, "stream_keys", lambda seed, method, *rest: keys(seed, "noise", *rest))


def first_of_ties(patch: pytest.MonkeyPatch) -> None:
    def winners(logits: Tensor) -> tuple[Tensor, Tensor]:
        finite = logits.isfinite().all(1)
        return torch.where(finite, logits.argmax(1), -1), finite

    patch.setattr(voting, "_winners", winners)


def nan_let_through(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(voting, "_winners", lambda z: (z.argmax(1), z.isfinite().all(1)))


@pytest.mark.parametrize(
    ("plant", "check"),
    [
        (one_stream, check_separate),
        (first_of_ties, lambda: check_doubt(0.0)),
        (nan_let_through, lambda: check_doubt(torch.nan)),
    ],
)
def test_planted_bugs_are_found(plant: Callable, check: Callable, monkeypatch):
    check()
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
