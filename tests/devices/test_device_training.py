"""Training on another device: the same weights as on the CPU, and checkpoints that go on."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from robustbench_c.data import Dataset, from_tensors
from robustbench_c.training import Federation, TrainConfig, fit, fit_federated
from robustbench_c.training.config import Augmentation
from robustbench_c.training.objectives import bind, short_attack, verifier
from robustbench_c.training.recipe import SparseChoice, load_recipe
from robustbench_c.training.sparsity import bind_sparse

CONFIG = TrainConfig(
    epochs=2,
    batch_size=16,
    optimiser="adam",
    learning_rate=0.01,
    clip_norm=1.0,
    ema_decay=0.9,
    eps_warmup_epochs=1,
    validation=8,
    augmentation=Augmentation(shift=1, flip=True),
)
DENSE = (
    *("standard", "pgd", "trades", "mart", "n-fgsm", "gradalign", "free", "awp", "ibp"),
    *("crown-ibp", "mtl-ibp", "cc-ibp", "sabr", "nrs"),
    *("explain", "align", "align-cosine", "hessian", "ig-norm"),
)
SPARSE = (
    *("static-sparse", "sparsevlr", "set", "rigl", "magnitude", "ac-dc", "rewind", "hydra"),
    *("cram", "tscnc"),
)
SHORT = ("sparsevlr",)
"""What is trained in the short form of the tests."""


def twice(images: Dataset, times: int) -> Dataset:
    """The images several times, as samples of their own."""
    x, y = images.x.repeat(times, 1, 1, 1), images.y.repeat(times)
    return from_tensors(x, y, lower=images.lower, upper=images.upper)


@pytest.fixture
def trained(images, net, tmp_path):
    """Train the net by a recipe's objective and sparse method, on a device."""
    data = twice(images, 2)

    def run(name: str, place: str, folder: str, resume: bool = False):
        recipe, model = load_recipe(name), deepcopy(net)
        for parameter in model.parameters():
            parameter.requires_grad_()
        ends = data.lower.to(place), data.upper.to(place)
        settings, sparse = recipe.objective.settings, None
        if name == "hessian":  # of ReLUs by differences: their second derivatives are 0
            settings = {**settings, "step": 0.1}
        if recipe.sparse is not None:
            own = {**recipe.sparse.settings, "sparsity": 0.5, "allocation": "global"}
            own |= {"surplus": 1.5} if "surplus" in own else {}
            sparse = bind_sparse(SparseChoice(method=recipe.sparse.method, settings=own))
        return fit(
            model,
            data,
            bind(recipe.objective.name, settings, *ends),
            CONFIG.model_copy(update={"cycles": 2, "epochs": 4} if name == "rewind" else {}),
            folder=tmp_path / folder,
            resume=resume,
            device=place,
            attack=short_attack(recipe.objective.threat, *ends, 0),
            verifier=verifier(recipe.objective.name, settings, *ends),
            sparsify=sparse,
        )

    return run


@pytest.fixture
def equal(device):
    """Asserts that two models have the same weights, where devices draw the same noise."""

    def check(one: nn.Module, other: nn.Module) -> None:
        there: dict[str, Tensor] = {k: v.cpu() for k, v in other.state_dict().items()}
        for name, value in one.state_dict().items():
            assert bool(there[name].isfinite().all()), name
            assert not device.exact or torch.equal(value.cpu(), there[name]), name

    return check


@pytest.mark.parametrize(
    "name",
    [n if n in SHORT else pytest.param(n, marks=pytest.mark.slow) for n in (*DENSE, *SPARSE)],
)
def test_training(trained, device, equal, name):
    here = trained(name, "cpu", "here")
    with device.there():
        there = trained(name, device.name, "there")
        assert next(there.model.parameters()).is_cuda
        equal(here.model, there.model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pgd", "sparsevlr", "tscnc"])
def test_training_goes_on(trained, device, tmp_path, monkeypatch, name):
    """A resume loads the checkpoint onto the device, and ends where one training would."""
    with device.there():
        whole = trained(name, device.name, "whole")
        with monkeypatch.context() as patch:
            patch.setattr("robustbench_c.training.progress.Progress.epoch", _stop)
            with pytest.raises(InterruptedError):
                trained(name, device.name, "part")
        again = trained(name, device.name, "part", resume=True)
        for key, value in whole.model.state_dict().items():
            found = again.model.state_dict()[key]
            assert torch.equal(value, found) or not device.exact, key


def _stop(*_: object) -> None:
    raise InterruptedError


@pytest.mark.slow
def test_clients(images, net, tmp_path, device):
    settings = {"norm": "linf", "eps": 0.05, "steps": 2, "step_size": 0.02}
    config = CONFIG.model_copy(update={"ema_decay": None, "optimiser": "sgd", "momentum": 0.0})
    config = config.model_copy(update={"nesterov": False, "augmentation": None})
    models = []
    for place in ("cpu", device.name):
        with device.there() if place != "cpu" else nullcontext():
            model = deepcopy(net)
            ends = images.lower.to(place), images.upper.to(place)
            fit_federated(
                model,
                twice(images, 3),
                bind("pgd", settings, *ends),
                config,
                Federation(clients=2),
                folder=tmp_path / place,
                device=place,
                attack=short_attack(settings, *ends, 0),
            )
            models.append({k: v.cpu() for k, v in model.state_dict().items()})
    for key, value in models[0].items():
        assert torch.equal(value, models[1][key]) or not device.exact
