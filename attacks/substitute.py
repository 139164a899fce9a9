"""Attacks by transfer: a substitute learns a model from its answers, and is attacked in its place.

Papernot et al. 2017 ("Practical black-box attacks against machine learning", algorithm 1): a small
network is trained on the classes that a model predicts, for a few samples and points near them;
then points are added that lie ahead of the samples along the substitute's own gradient. It has
gradients whatever the model does to its own, so examples that are crafted on it show what a search
by the model's gradients missed. A perceptron of two hidden layers does, for images and tables.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.balls import Ball
from attacks.classifier import TiledClassifier
from attacks.driver import missed
from attacks.losses import margin
from attacks.pgd import PGDConfig, pgd
from attacks.randomness import stream_keys, uniform
from attacks.threat import ThreatModel

_COPIES = 8
_REACH = (1, 2)
"""Of a copy's noise, in units of eps, by turns."""
_HIDDEN, _EPOCHS, _BATCH, _RATE = 128, 6, 64, 2e-3
_CRAFT = PGDConfig(steps=20, restarts=1, loss="margin")


class Substitute(nn.Module):
    """A perceptron on inputs that are scaled from their box to [-1, 1]."""

    middle: Tensor
    span: Tensor

    def __init__(
        self, threat: ThreatModel, shape: tuple[int, ...], classes: int, seed: int
    ) -> None:
        super().__init__()
        width = threat.upper - threat.lower
        self.register_buffer("middle", (threat.lower + width / 2).expand(shape).clone())
        self.register_buffer("span", torch.where(width > 0, width / 2, 1.0).expand(shape).clone())
        sizes = (torch.Size(shape).numel(), _HIDDEN, _HIDDEN, classes)
        device = threat.lower.device
        self.layers = nn.ModuleList(
            _linear(seed, number, *ends).to(device) for number, ends in enumerate(pairwise(sizes))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        z = ((x - self.middle) / self.span).flatten(1)
        for layer in self.layers[:-1]:
            z = F.relu(layer(z))
        logits: Tensor = self.layers[-1](z)
        return logits


def _linear(seed: int, number: int, before: int, after: int) -> nn.Linear:
    """A layer whose weights depend on the seed alone (He et al. 2015, uniform)."""
    layer = nn.Linear(before, after, device="meta").to_empty(device="cpu")
    keys = stream_keys(seed, f"substitute-layer-{number}", range(after), 0)
    with torch.no_grad():
        layer.weight.copy_((2 * uniform(keys, before) - 1) * (6 / before) ** 0.5)
        layer.bias.zero_()
    return layer


def substitute_of(
    classifier: TiledClassifier, x: Tensor, ids: Tensor, threat: ThreatModel, seed: int
) -> TiledClassifier:
    """Train a substitute on what a model predicts near some samples.

    Takes 18 forward passes of the model for each sample. The same samples in the same order, with
    the same seed, give the same substitute, whatever the model's tiles are.

    Args:
        classifier: The model.
        x: Samples inside the box, float32, (n, *shape), n >= 1, on the model's device.
        ids: Sample ids that key the noise, int64, (n,).
        threat: What the attacker may do, on the same device; its eps is the size of the noise.
        seed: Seed of noise, weights and the order of training.
    """
    points = torch.cat([x, *(_copy(x, ids, threat, seed, k) for k in range(_COPIES))])
    answers = classifier.logits(points)
    module = Substitute(threat, tuple(x.shape[1:]), answers.shape[1], seed)
    order = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        _fit(module, points, answers.argmax(1), order)
        ahead = _ahead(module, points, answers.argmax(1), threat)
        answers = torch.cat([answers, classifier.logits(ahead)])
        _fit(module, torch.cat([points, ahead]), answers.argmax(1), order)
    return TiledClassifier(module.requires_grad_(False).eval())


def _copy(x: Tensor, ids: Tensor, threat: ThreatModel, seed: int, number: int) -> Tensor:
    """The samples with noise of their own."""
    wide = replace(threat, eps=threat.eps * _REACH[number % len(_REACH)])
    keys = stream_keys(seed, "substitute-noise", ids.tolist(), number).to(x.device)
    return Ball.around(wide, x).outermost(keys)


def _ahead(module: Substitute, points: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    """Points a step towards the substitute's own boundary (equation 6 there)."""
    points = points.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(-margin(module(points), y).sum(), points)
    return Ball.around(threat, points.detach()).step(points.detach(), gradient, threat.eps)


def _fit(module: Substitute, x: Tensor, y: Tensor, order: torch.Generator) -> None:
    optimiser = torch.optim.Adam(module.parameters(), _RATE)
    for _ in range(_EPOCHS):
        for batch in torch.split(torch.randperm(len(x), generator=order).to(x.device), _BATCH):
            loss = F.cross_entropy(module(x[batch]), y[batch])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            optimiser.step()


def transferred(
    surrogate: TiledClassifier,
    classifier: TiledClassifier,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    threat: ThreatModel,
    seed: int,
) -> Tensor:
    """Which samples of a model break by an example that was crafted on another one; bool, (n,).

    Twenty steps of PGD raise the surrogate's margin; each point that it misclassifies is shown to
    the model.
    """
    return pgd(
        surrogate,
        x,
        y,
        ids,
        threat,
        _CRAFT,
        seed,
        confirm=lambda points, labels: missed(classifier.logits(points), labels),
    ).found
