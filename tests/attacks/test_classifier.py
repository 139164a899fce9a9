"""Models that cannot be judged are refused in one line; the others leave no trace."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from attack_checks import MODELS, Case
from torch import Tensor, nn

from attacks.classifier import CPU_TILES, TiledClassifier, exact_passes, prepare
from attacks.driver import in_float64, recheck
from attacks.errors import ClassifierError


class Model(nn.Module):
    """A linear layer of 5 features and 3 classes, spoiled by a function of (x, logits)."""

    def __init__(self, spoil: object = None) -> None:
        super().__init__()
        self.layer, self.spoil = nn.Linear(5, 3), spoil

    def forward(self, x: Tensor) -> Tensor:
        return self.spoil(x, self.layer(x)) if callable(self.spoil) else self.layer(x)


class OfBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x - x.mean(0))


X = torch.rand(50, 5, generator=torch.Generator().manual_seed(0))


def nan_on_sample_7(x: Tensor, logits: Tensor) -> Tensor:
    hit = (x == X[7]).all(1, keepdim=True)
    return torch.where(hit, torch.nan, logits)


def refuse(x: Tensor, logits: Tensor) -> Tensor:
    raise KeyError("layer\nwith a second line")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, z: z + 1e-3 * torch.rand_like(z), "output is random"),
        (lambda x, z: nn.functional.dropout(z, 0.5), "output is random"),
        (nan_on_sample_7, "NaN or Inf on sample 7 of the data"),
        (lambda x, z: z / 0, "NaN or Inf on sample 0"),
        (lambda x, z: z[:, :1], "one output"),
        (lambda x, z: z[:, 0], r"returned \(32,\) for a batch of 32"),
        (lambda x, z: z[:16], r"returned \(16, 3\) for a batch of 32"),
        (lambda x, z: [z], "returned list"),
        (lambda x, z: z.detach(), "no gradient"),
        (lambda x, z: z.argmax(1, keepdim=True).float() * torch.ones(1, 3), "no gradient"),
        (lambda x, z: z * 0 @ torch.ones(7, 3), r"cannot evaluate samples of shape \(5,\)"),
        (refuse, r"cannot evaluate samples of shape \(5,\): .*layer"),
    ],
)
def test_models_without_a_verdict_are_refused_in_one_line(spoil, message):
    with pytest.raises(ClassifierError, match=message) as caught:
        prepare(Model(spoil).eval(), X)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n", [1, 5, 50])
@pytest.mark.parametrize(
    "build",
    [OfBatch, lambda: nn.Sequential(nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 3))],
)
def test_a_model_that_looks_at_its_batch_is_refused(build, n):
    with pytest.raises(ClassifierError, match="depends on the other samples"):
        prepare(build().eval(), X[:n])


def test_an_input_that_the_model_ignores_is_no_gradient():
    module = nn.Sequential(nn.Linear(5, 3))
    module.register_forward_hook(lambda m, args, out: out.detach() + m[0].bias)
    with pytest.raises(ClassifierError, match="no gradient with respect to its input"):
        prepare(module.eval(), X)


def test_training_mode_is_refused():
    with pytest.raises(ClassifierError, match="training mode"):
        prepare(Model().train(), X)


def test_samples_of_another_shape_are_refused_in_one_line():
    with pytest.raises(ClassifierError, match=r"samples of shape \(6,\)") as caught:
        prepare(Model().eval(), torch.rand(3, 6))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_the_models_of_these_tests_do_not_depend_on_place(name):
    case = Case.make(name, "linf")
    assert prepare(case.module, case.x).invariant


@pytest.mark.parametrize("width", [10, 13, 30, 50])
@pytest.mark.parametrize("features", [5, 9, 20])
def test_odd_widths_do_not_depend_on_place(features, width):
    """MKL chose its kernels by alignment here: see attacks/__init__.py."""
    module = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, 3)).eval()
    x = torch.rand(64, features, generator=torch.Generator().manual_seed(1))
    assert prepare(module, x, 32).invariant


def test_the_batch_size_caps_the_tiles():
    case = Case.make("cnn-small", "linf", n=200)
    smallest = CPU_TILES[0]
    for batch_size in (1, smallest, 64, 100):
        tiles = prepare(case.module, case.x, batch_size).tiles
        assert tiles[0] == smallest
        assert tiles[-1] <= max(batch_size, smallest)


def test_logits_of_any_number_are_those_of_each_sample():
    case = Case.make("cnn-small", "linf")
    classifier = TiledClassifier(case.module, (32, 64))
    whole = classifier.logits(case.x)
    for n in (1, 31, 32, 33, 65, 90):
        assert torch.equal(classifier.logits(case.x[:n]), whole[:n])


def test_work_counts_every_row_that_was_run():
    classifier = TiledClassifier(Model().eval(), (32, 64))
    classifier.logits(X[:40])
    assert (classifier.work.forwards, classifier.work.backwards) == (64, 0)
    classifier.logits_and_gradient(X[:32], lambda z: z[:, 0])
    assert (classifier.work.forwards, classifier.work.backwards) == (96, 32)


def test_an_attack_leaves_no_trace():
    case = Case.make("cnn-batch-norm", "l2")
    case.module.requires_grad_(True)
    before = {key: value.clone() for key, value in case.module.state_dict().items()}
    clean = case.x.clone()
    flags = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with exact_passes():
        prepare(case.module, case.x)
        result = case.run()
        precise = in_float64(case.module, case.x)
        assert precise is not None
        classifiers = TiledClassifier(case.module), TiledClassifier(precise)
        recheck(*classifiers, case.x, result.adversarial, case.y, case.threat)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]
    assert flags == (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    assert torch.is_grad_enabled()
    assert torch.equal(case.x, clean)
    assert not case.x.requires_grad
    assert not result.adversarial.requires_grad
    for key, value in case.module.state_dict().items():
        assert torch.equal(value, before[key])
        assert value.dtype == before[key].dtype
    assert all(weight.grad is None and weight.requires_grad for weight in case.module.parameters())
    assert not any(module.training for module in case.module.modules())


@pytest.mark.parametrize("fails", [False, True])
def test_the_callers_settings_come_back(fails):
    def settings() -> tuple[bool, ...]:
        cudnn = torch.backends.cudnn
        return (
            torch.backends.cuda.matmul.allow_tf32,
            cudnn.enabled,
            cudnn.benchmark,
            cudnn.deterministic,
            cudnn.allow_tf32,
        )

    before = settings()
    try:
        torch.backends.cudnn.benchmark = torch.backends.cuda.matmul.allow_tf32 = True
        mine = settings()
        try:
            with exact_passes():
                assert settings() == (False, True, False, True, False)
                if fails:
                    raise KeyError
        except KeyError:
            pass
        assert settings() == mine
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark = before[0], before[2]
