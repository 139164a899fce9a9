"""Random models: their expectation is a function that repeats, and attacks find the way in it."""

from __future__ import annotations

import pytest
import torch
from attack_checks import Case, check_inside, check_same
from torch import Tensor, nn

from attacks.classifier import TiledClassifier, prepare
from attacks.driver import in_float64
from attacks.eot import Expectation, held_by
from attacks.errors import AttackError, ClassifierError
from attacks.pgd import PGDConfig, pgd
from attacks.result import AttackResult
from attacks.threat import ThreatModel


class Flip(nn.Module):
    """A linear model that sees each feature with the wrong sign in 40% of all passes.

    Of the gradient of one pass, 40% of the signs are wrong; the mean logits are linear.
    """

    def __init__(self, d: int = 40) -> None:
        super().__init__()
        weight = 0.3 * torch.randn(3, d, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        sign = torch.where(torch.rand_like(x) < 0.4, -1.0, 1.0)
        return ((x - 0.5) * sign) @ self.weight.T


def noisy_cnn() -> nn.Module:
    class Noisy(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.dropout(x, 0.2, training=True)
            return self.module(x + 0.1 * torch.randn(x.shape))

    return Noisy(Case.make("cnn-small", "linf", 2).module).eval()


def clear_samples(module: nn.Module, final: TiledClassifier) -> tuple[Tensor, Tensor]:
    """Samples with a margin that no draw of an expectation is near."""
    x = torch.rand(64, 40, generator=torch.Generator().manual_seed(1))
    logits = final.logits(x)
    top = logits.topk(2, 1).values
    keep = (top[:, 0] - top[:, 1] > 0.1).nonzero()[:24, 0]
    return x[keep], logits[keep].argmax(1)


def test_averaged_gradients_break_what_single_ones_do_not():
    """Equal steps and judges; counted is what 150 draws, that no attack has seen, get wrong."""
    module = Flip().eval()
    judge = held_by(TiledClassifier(Expectation(module, 20, seed=9)))
    final = TiledClassifier(Expectation(module, 150, seed=77))
    x, y = clear_samples(module, final)
    threat, config = ThreatModel.box("linf", 0.2), PGDConfig(steps=8, restarts=1, loss="margin")
    broken = []
    for attacked in (module, Expectation(module, 20)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            result = pgd(
                TiledClassifier(attacked),
                x,
                y,
                torch.arange(len(x)),
                threat,
                config,
                0,
                confirm=judge,
            )
        check_inside(threat, x, result.adversarial)
        broken.append(int((final.logits(result.adversarial).argmax(1) != y).sum()))
    plain, averaged = broken
    assert averaged >= plain + 5, broken


def test_the_mean_is_that_of_the_probabilities():
    class Coin(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            side = (torch.rand(()) < 0.25).float()
            return torch.stack([x[:, 0], 8 * side + 0 * x[:, 0]], 1)

    x = torch.tensor([[0.0], [2.0]])
    found = Expectation(Coin().eval(), 400)(x).exp()
    assert found.sum(1).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    heads = torch.stack([x[:, 0], torch.full((2,), 8.0)], 1).softmax(1)
    tails = torch.stack([x[:, 0], torch.zeros(2)], 1).softmax(1)
    share = (found - tails) / (heads - tails)  # of draws: the same for all entries
    assert float(share.max() - share.min()) < 1e-4
    assert float(share.mean()) == pytest.approx(0.25, abs=0.07)
    still = Case.make("mlp", "linf", 5)
    expected = still.module(still.x).log_softmax(1)
    assert (Expectation(still.module, 3)(still.x) - expected).abs().max() < 1e-5


def run(module: nn.Module, rows: Tensor) -> AttackResult:
    x = torch.rand(40, 1, 12, 12, generator=torch.Generator().manual_seed(2))
    y = TiledClassifier(Expectation(module, 3)).logits(x).argmax(1)
    threat, config = ThreatModel.box("linf", 0.02), PGDConfig(steps=3, restarts=1)
    classifier = TiledClassifier(Expectation(module, 3))
    return pgd(classifier, x[rows], y[rows], rows, threat, config, 0)


def check_company() -> None:
    module = noisy_cnn()
    whole = run(module, torch.arange(40))
    assert 0 < int(whole.found.sum()) < 40
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(3))[:13]
    check_same(whole, run(module, rows), rows)


def test_a_random_network_is_prepared_and_repeats():
    module, x = noisy_cnn(), torch.rand(40, 1, 12, 12)
    with pytest.raises(ClassifierError, match="Expectation"):
        prepare(module, x)
    state = torch.random.get_rng_state()
    classifier = prepare(Expectation(module, 3), x, 32)
    assert torch.equal(classifier.logits(x), classifier.logits(x))
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's stream is left alone"
    other = TiledClassifier(Expectation(module, 3, seed=1)).logits(x)
    assert not torch.equal(other, classifier.logits(x))
    check_company()


def test_noise_of_a_place_in_the_batch_is_seen(monkeypatch):
    right = torch.func.vmap
    monkeypatch.setattr(torch.func, "vmap", lambda f, randomness: right(f, randomness="different"))
    with pytest.raises(AssertionError, match="differs"):
        check_company()
    with pytest.raises(ClassifierError, match="other samples"):
        prepare(Expectation(noisy_cnn(), 3), torch.rand(40, 1, 12, 12))


def test_no_float64_no_training_mode_and_no_draws():
    module = Flip().eval()
    assert in_float64(Expectation(module, 2), torch.rand(1, 40)) is None
    with pytest.raises(ClassifierError, match="training"):
        TiledClassifier(Expectation(Flip().train()))
    with pytest.raises(AttackError, match="draws"):
        Expectation(module, 0)
