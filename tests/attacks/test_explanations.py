"""Explanations equal Captum's, have the properties they are known for, and refuse nonsense."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.errors import AttackError
from attacks.explanations import Explanation, Kind, Score, explain

CLASSES = 4
SHAPE = (1, 6, 6)
TARGET, OTHER = torch.tensor([0, 3, 1]), torch.tensor([2, 1, 0])
SCORES: tuple[Score, ...] = ("logit", "loss", "margin")
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "softplus": nn.Softplus,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


def net(activation: str) -> nn.Module:
    torch.manual_seed(0)
    act = ACTIVATIONS[activation]
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        nn.BatchNorm2d(3),
        act(),
        nn.AvgPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(12, 10),
        act(),
        nn.Linear(10, CLASSES),
    ).eval()


def samples() -> Tensor:
    return torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))


def score(model: nn.Module, of: Score) -> Callable[[Tensor], Tensor]:
    """The scalar that is explained, for Captum."""

    def value(x: Tensor) -> Tensor:
        logits = model(x)
        repeats = len(x) // len(TARGET)
        # integrated gradients stack whole batches
        target, other = TARGET.repeat(repeats), OTHER.repeat(repeats)
        if of == "loss":
            return F.cross_entropy(logits, target, reduction="none")
        own = logits.gather(1, target[:, None])[:, 0]
        return own if of == "logit" else own - logits.gather(1, other[:, None])[:, 0]

    return value


def over(of: Score) -> Tensor | None:
    return OTHER if of == "margin" else None


@pytest.mark.parametrize("of", SCORES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
class TestCaptum:
    """The same numbers as Captum's (Kokhlikyan et al., 2020)."""

    @pytest.fixture(autouse=True)
    def captum(self):
        return pytest.importorskip("captum.attr", reason="captum is not installed")

    @pytest.mark.parametrize("kind", ["gradient", "absolute-gradient"])
    def test_saliency(self, captum, activation: str, of: Score, kind: Kind) -> None:
        model, x = net(activation), samples()
        ours = explain(model, x, TARGET, Explanation(kind, of), over(of))
        theirs = captum.Saliency(score(model, of))
        wanted = theirs.attribute(x.clone().requires_grad_(), abs=kind != "gradient")
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-7)

    def test_input_x_gradient(self, captum, activation: str, of: Score) -> None:
        model, x = net(activation), samples()
        ours = explain(model, x, TARGET, Explanation("input-x-gradient", of), over(of))
        wanted = captum.InputXGradient(score(model, of)).attribute(x.clone().requires_grad_())
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("baseline", [None, 0.3])
    @pytest.mark.parametrize("steps", [2, 7])  # Captum refuses one step
    def test_integrated_gradients(
        self, captum, activation: str, of: Score, steps: int, baseline: float | None
    ) -> None:
        model, x = net(activation), samples()
        start = None if baseline is None else torch.full(SHAPE, baseline)
        explanation = Explanation("integrated-gradients", of, steps, start)
        ours = explain(model, x, TARGET, explanation, over(of))
        theirs = captum.IntegratedGradients(score(model, of))
        wanted = theirs.attribute(
            x, baselines=baseline or 0.0, n_steps=steps, method="riemann_right"
        )
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-6)

    def test_smoothgrad(self, captum, activation: str, of: Score) -> None:
        """Captum draws its noise itself: one sample at a time, ours is given the same draws."""
        model, x, draws = net(activation), samples(), 5
        for i in range(len(x)):
            torch.manual_seed(i)
            noise = torch.normal(0.0, torch.full((draws, *SHAPE), 0.2))
            target, other = TARGET[i : i + 1], OTHER[i : i + 1]
            explanation = Explanation("smoothgrad", of, draws, noise=noise)
            weight = other if of == "margin" else None
            ours = explain(model, x[i : i + 1], target, explanation, weight)

            def single(at: Tensor, i: int = i) -> Tensor:
                row = F.one_hot(TARGET[i], CLASSES) - (of == "margin") * F.one_hot(
                    OTHER[i], CLASSES
                )
                logits = model(at)
                return (-logits.log_softmax(1) if of == "loss" else logits) @ row.float()

            torch.manual_seed(i)
            theirs = captum.NoiseTunnel(captum.Saliency(single))
            wanted = theirs.attribute(
                x[i : i + 1],
                nt_type="smoothgrad",
                nt_samples=draws,
                stdevs=0.2,
                abs=False,
            )
            torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_integrated_gradients_become_complete(activation: str) -> None:
    """They sum up to the difference of scores (Sundararajan et al., axiom 2), as steps grow."""
    model, x = net(activation).double(), samples().double()
    start = torch.full(SHAPE, 0.3)
    with torch.no_grad():
        gap = model(x) - model(start.double()[None])
    wanted = gap.gather(1, TARGET[:, None])[:, 0]
    errors = []
    for steps in (4, 40, 400):
        found = explain(
            model, x, TARGET, Explanation("integrated-gradients", "logit", steps, start)
        )
        errors.append(float((found.detach().flatten(1).sum(1) - wanted).abs().max()))
    assert errors[2] < 1e-3 * float(wanted.abs().max())
    assert errors[2] < errors[0] / 20  # the Riemann sum's error is of first order


def test_one_step_of_integrated_gradients_is_input_x_gradient() -> None:
    model, x = net("gelu"), samples()
    one = explain(model, x, TARGET, Explanation("integrated-gradients"))
    assert torch.equal(one, explain(model, x, TARGET, Explanation("input-x-gradient")))


def test_smoothgrad_without_noise_is_the_gradient() -> None:
    model, x = net("gelu"), samples()
    smooth = explain(model, x, TARGET, Explanation.smoothgrad(SHAPE, 3, 0.0))
    torch.testing.assert_close(smooth, explain(model, x, TARGET))


def test_smoothgrad_is_fixed_by_its_seed() -> None:
    def noise(seed: int) -> Tensor:
        found = Explanation.smoothgrad(SHAPE, 2000, 0.5, seed).noise
        assert found is not None
        return found

    assert torch.equal(noise(1), noise(1))
    assert not torch.equal(noise(1), noise(2))
    assert float(noise(1).std()) == pytest.approx(0.5, rel=0.01)


def test_a_margin_is_the_difference_of_logits() -> None:
    model, x = net("tanh"), samples()
    both = explain(model, x, TARGET) - explain(model, x, OTHER)
    torch.testing.assert_close(explain(model, x, TARGET, Explanation(of="margin"), OTHER), both)


def test_the_gradient_of_the_loss_is_that_of_logits_weighted_by_errors() -> None:
    model, x = net("softplus"), samples()
    error = model(x).softmax(1) - F.one_hot(TARGET, CLASSES)
    logits = torch.stack([explain(model, x, torch.full((3,), c)) for c in range(CLASSES)], 1)
    wanted = (error[:, :, None, None, None] * logits).sum(1)
    torch.testing.assert_close(explain(model, x, TARGET, Explanation(of="loss")), wanted)


def test_samples_are_explained_one_by_one() -> None:
    model, x = net("relu").double(), samples().double()
    for explanation in (
        Explanation(),
        Explanation("integrated-gradients", steps=3),
        Explanation.smoothgrad(SHAPE, 3, 0.1),
    ):
        whole = explain(model, x, TARGET, explanation)
        for i in range(3):
            alone = explain(model, x[i : i + 1], TARGET[i : i + 1], explanation)
            torch.testing.assert_close(whole[i : i + 1], alone)


def test_it_can_be_differentiated_by_inputs_and_by_weights() -> None:
    model, x = net("softplus").double(), samples().double().requires_grad_()
    first = next(model.parameters())
    slopes = torch.autograd.grad(explain(model, x, TARGET).square().sum(), (x, first))
    for by, slope in zip((x, first), slopes, strict=True):
        move = 1e-5 * torch.randn(by.shape, generator=torch.Generator().manual_seed(0)).double()
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                by += sign * move
            ends.append(float(explain(model, x, TARGET).detach().square().sum()))
            with torch.no_grad():
                by -= sign * move
        assert (ends[0] - ends[1]) / 2 == pytest.approx(float((slope * move).sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "saliency"}, "no explanation 'saliency': use one of gradient, absolute-gradient"),
        ({"of": "probability"}, "no score 'probability': use one of logit, loss, margin"),
        ({"steps": 2}, "an explanation of kind gradient cannot have 2 steps"),
        ({"kind": "integrated-gradients", "steps": 0}, "cannot have 0 steps"),
        ({"noise": torch.zeros(1, 2)}, "noise belongs to smoothgrad"),
        ({"kind": "smoothgrad"}, "smoothgrad needs it"),
        (
            {"kind": "smoothgrad", "steps": 3, "noise": torch.zeros(2, 2)},
            "3 steps need as many draws, not 2",
        ),
        ({"baseline": torch.zeros(2)}, "a baseline belongs to integrated-gradients"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, object], says: str) -> None:
    with pytest.raises(AttackError, match=says) as caught:
        Explanation(**settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sigma", [-0.1, float("inf"), float("nan")])
def test_noise_has_a_deviation(sigma: float) -> None:
    with pytest.raises(AttackError, match="it must be finite and not negative"):
        Explanation.smoothgrad(SHAPE, 2, sigma)


def test_the_other_class_belongs_to_margins() -> None:
    model, x = net("relu"), samples()
    with pytest.raises(AttackError, match="margins need it"):
        explain(model, x, TARGET, Explanation(of="margin"))
    with pytest.raises(AttackError, match="the other class belongs to margins"):
        explain(model, x, TARGET, Explanation(), OTHER)
