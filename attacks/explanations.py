"""Explanations of a classifier's output by gradients, as functions that can be differentiated.

Each is a pure function of the model's tensors and of the input: attacks differentiate it, and
`certify` traces it. Integrated gradients and SmoothGrad evaluate the gradient at several points of
a sample; these are merged into the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from attacks.errors import AttackError

Kind = Literal[
    "gradient", "absolute-gradient", "input-x-gradient", "integrated-gradients", "smoothgrad"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
Score = Literal["logit", "loss", "margin"]
SCORES: tuple[Score, ...] = get_args(Score)


@dataclass(frozen=True, eq=False)
class Explanation:
    """What is explained, and how.

    Attributes:
        kind: "gradient" (Simonyan et al., 2014), its absolute value, its product with the input,
            "integrated-gradients" (Sundararajan et al., ICML 2017) along the straight line from
            `baseline` by the right Riemann sum, or "smoothgrad" (Smilkov et al., 2017): the mean of
            gradients at `x + noise`.
        of: What it is a gradient of: the logit of a class, the cross-entropy of a class, or the
            margin of a class over another.
        steps: Points of the path, or draws of noise; 1 for the others.
        baseline: Where the path starts, of the shape of a sample, or None for zeros.
        noise: Fixed noise, (steps, *shape); SmoothGrad alone has it.
    """

    kind: Kind = "gradient"
    of: Score = "logit"
    steps: int = 1
    baseline: Tensor | None = None
    noise: Tensor | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise AttackError(f"no explanation '{self.kind}': use one of {', '.join(KINDS)}")
        if self.of not in SCORES:
            raise AttackError(f"no score '{self.of}': use one of {', '.join(SCORES)}")
        if self.steps < 1 or (self.steps > 1 and self.kind not in _MANY):
            raise AttackError(f"an explanation of kind {self.kind} cannot have {self.steps} steps")
        if (self.noise is not None) != (self.kind == "smoothgrad"):
            raise AttackError("noise belongs to smoothgrad, and smoothgrad needs it")
        if self.noise is not None and len(self.noise) != self.steps:
            raise AttackError(f"{self.steps} steps need as many draws, not {len(self.noise)}")
        if self.baseline is not None and self.kind != "integrated-gradients":
            raise AttackError("a baseline belongs to integrated-gradients")

    @classmethod
    def smoothgrad(
        cls,
        shape: tuple[int, ...],
        draws: int,
        sigma: float,
        seed: int = 0,
        of: Score = "logit",
    ) -> Explanation:
        """SmoothGrad with Gaussian noise of deviation `sigma`, in units of the input."""
        if not 0 <= sigma < math.inf:
            raise AttackError(f"sigma is {sigma}: it must be finite and not negative")
        noise = torch.randn((draws, *shape), generator=torch.Generator().manual_seed(seed)) * sigma
        return cls("smoothgrad", of, draws, None, noise)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What it is a function of besides the model, the input and the seed, by name."""
        given = {"baseline": self.baseline, "noise": self.noise}
        return {name: value for name, value in given.items() if value is not None}


_MANY = {"integrated-gradients", "smoothgrad"}


def seeds(
    explanation: Explanation, target: Tensor, classes: int, other: Tensor | None = None
) -> Tensor:
    """Weights of the logits that make the score: float32 (n, classes).

    Args:
        explanation: Says which score.
        target: Class that is explained, int64 (n,).
        classes: Number of classes.
        other: The class that the margin is over, int64 (n,); for margins alone.

    Raises:
        AttackError: `other` is missing, or given and not used.
    """
    if (other is not None) != (explanation.of == "margin"):
        raise AttackError("the other class belongs to margins, and margins need it")
    weights = torch.nn.functional.one_hot(target, classes).float()
    return (
        weights if other is None else weights - torch.nn.functional.one_hot(other, classes).float()
    )


def attribute(
    explanation: Explanation,
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    seed: Tensor,
    tensors: Mapping[str, Tensor],
) -> Tensor:
    """Evaluate an explanation.

    Args:
        explanation: Which.
        forward: From inputs (n, *shape) to logits (n, classes), sample by sample.
        x: Samples (n, *shape).
        seed: As `seeds` gives it, (n, classes).
        tensors: The explanation's own, on the device and of the type of `x`.

    Returns:
        (n, *shape).
    """

    def gradient(at: Tensor, weights: Tensor) -> Tensor:
        def score(point: Tensor) -> Tensor:
            logits = forward(point)
            if explanation.of == "loss":
                return -(torch.log_softmax(logits, 1) * weights).sum()
            return (logits * weights).sum()

        result: Tensor = torch.func.grad(score)(at)
        return result

    if explanation.kind == "gradient":
        return gradient(x, seed)
    if explanation.kind == "absolute-gradient":
        return gradient(x, seed).abs()
    if explanation.kind == "input-x-gradient":
        return x * gradient(x, seed)
    many, tail = explanation.steps, x.shape[1:]
    spread = x.unsqueeze(1).expand(-1, many, *tail)
    weights = seed.unsqueeze(1).expand(-1, many, -1).reshape(-1, seed.shape[1])
    if explanation.kind == "smoothgrad":
        found = gradient((spread + tensors["noise"]).reshape(-1, *tail), weights)
        return found.reshape(-1, many, *tail).mean(1)
    steps = torch.arange(1, many + 1, dtype=x.dtype, device=x.device) / many
    steps = steps.reshape(many, *(1,) * len(tail))
    path, away = spread * steps, x
    if "baseline" in tensors:
        path, away = path + tensors["baseline"] * (1 - steps), x - tensors["baseline"]
    return away * gradient(path.reshape(-1, *tail), weights).reshape(-1, many, *tail).mean(1)


def explain(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    explanation: Explanation | None = None,
    other: Tensor | None = None,
) -> Tensor:
    """Explain a classifier's output.

    Args:
        model: In eval mode; from inputs to logits.
        x: Samples (n, *shape).
        target: Class that is explained, int64 (n,).
        explanation: Which; None for the gradient of the logit.
        other: The class that the margin is over, int64 (n,); for margins alone.

    Returns:
        (n, *shape); it can be differentiated by `x` and by the model's parameters.
    """
    explanation = explanation or Explanation()
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    seed = seeds(explanation, target, classes, other).to(x)
    tensors = {name: value.to(x) for name, value in explanation.tensors.items()}
    return attribute(explanation, model, x, seed, tensors)
