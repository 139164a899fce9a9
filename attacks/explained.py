"""Logits and explanations of a model at points of which each may have weights of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from attacks import memory
from attacks.errors import AttackError, ClassifierError
from attacks.explanations import Explanation, attribute
from attacks.softplus import ReLUInputs, SoftplusForReLU

Weights = dict[str, Tensor]
"""Parameters by name, (n, *shape): a model for each of n samples."""


@dataclass(frozen=True, eq=False)
class Points:
    """Inputs, and models.

    Attributes:
        x: (n, *shape).
        weights: The models, or None: the given one for all.
    """

    x: Tensor
    weights: Weights | None = None

    def __getitem__(self, rows: Tensor | slice) -> Points:
        some = None if self.weights is None else {k: w[rows] for k, w in self.weights.items()}
        return Points(self.x[rows], some)

    @classmethod
    def join(cls, parts: list[Points]) -> Points:
        """All of them, one after the other."""
        weights = None
        if parts[0].weights is not None:
            names = parts[0].weights
            weights = {k: torch.cat([p.weights[k] for p in parts if p.weights]) for k in names}
        return cls(torch.cat([p.x for p in parts]), weights)

    def tracked(self, inputs: bool) -> tuple[Points, list[Tensor]]:
        """The same points as leaves of a graph, and what a gradient is asked by."""
        x = self.x.detach()
        leaves = [x.requires_grad_()] if inputs else []
        if self.weights is None:
            return Points(x), leaves
        weights = {name: w.detach().requires_grad_() for name, w in self.weights.items()}
        return Points(x, weights), [*leaves, *weights.values()]


class ExplainedModel:
    """A model as a function of inputs and of weights.

    Attributes:
        weights: Its own parameters.
        classes: Number of classes.
        beta: Of the softplus that stands for ReLU in `explain` where it is asked for; None where
            there is none to replace.
        passes: Forward (and as many backward) passes of one explanation of one sample.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, explanation: Explanation, beta: float | None
    ) -> None:
        """Look at the model.

        Args:
            model: In eval mode.
            x: One sample or more, (n, *shape), on its device.
            explanation: Which.
            beta: Sharpness of the softplus, or None for none.

        Raises:
            ClassifierError: Training mode, or the output is not a row of logits for each sample.
        """
        if model.training:
            raise ClassifierError("the model is in training mode: call model.eval()")
        self._model = model
        self.weights = {name: w.detach() for name, w in model.named_parameters()}
        self._buffers = dict(model.named_buffers())
        self._explanation = explanation
        self._own = {name: value.to(x) for name, value in explanation.tensors.items()}
        self.passes = explanation.steps
        mode = SoftplusForReLU(beta or 1.0)
        with torch.no_grad(), mode:
            logits = model(x[:1])
        if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[1] < 2:
            raise ClassifierError("the model does not return logits of shape (batch, classes)")
        self.classes = logits.shape[1]
        self.beta = beta if mode.met else None
        self._together: bool | None = None

    def logits(self, points: Points) -> Tensor:
        """Logits, (n, classes)."""
        if points.weights is None:
            return self._call(self.weights, points.x)
        return self._each(
            lambda w, x, seed: self._call(w, x[None])[0], points.weights, points.x, points.x
        )

    def explain(self, points: Points, seed: Tensor, smooth: bool = False) -> Tensor:
        """Explanations, (n, *shape).

        Args:
            points: Inputs and models.
            seed: As `attacks.explanations.seeds` gives it, (n, classes).
            smooth: Of the net with softplus for ReLU.
        """
        with SoftplusForReLU(self.beta) if smooth and self.beta is not None else nullcontext():
            if points.weights is None:
                return self._attribute(self.weights, points.x, seed)
            return self._each(
                lambda w, x, s: self._attribute(w, x[None], s[None])[0],
                points.weights,
                points.x,
                seed,
            )

    def relu_inputs(self, points: Points) -> list[Tensor]:
        """What enters each ReLU at inputs of the given model, each (n, ...)."""
        inputs = ReLUInputs()
        with inputs:
            self.logits(points)
        return inputs.found

    def _call(self, weights: Weights, x: Tensor) -> Tensor:
        found: Tensor = functional_call(self._model, {**weights, **self._buffers}, (x,))
        return found

    def _attribute(self, weights: Weights, x: Tensor, seed: Tensor) -> Tensor:
        return attribute(self._explanation, lambda at: self._call(weights, at), x, seed, self._own)

    def _each(
        self,
        function: Callable[[Weights, Tensor, Tensor], Tensor],
        weights: Weights,
        x: Tensor,
        seed: Tensor,
    ) -> Tensor:
        """Samples with models of their own: at once, or one by one where the model forbids that."""
        if self._together is not False:
            try:
                found: Tensor = vmap(function)(weights, x, seed)
            except Exception as error:  # a stranger's forward can refuse in any way
                if memory.exhausted(error):
                    raise
                if self._together:
                    raise AttackError(f"the model cannot be evaluated: {error}") from error
                self._together = False
            else:
                self._together = True
                return found
        one = [
            function({name: w[i] for name, w in weights.items()}, x[i], seed[i])
            for i in range(len(x))
        ]
        return torch.stack(one)
