"""Expectation over transformation: attacks on models whose output is random.

Athalye et al., "Synthesizing robust adversarial examples" (ICML 2018), section 2.1, and for random
defences Athalye, Carlini and Wagner (ICML 2018), section 4.2: what is attacked is the expected
output, and one gradient of the model says little about that. The expectation is replaced by a mean
over draws that are made once: a function like any other, on which every attack runs as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from attacks.classifier import TiledClassifier
from attacks.driver import missed
from attacks.errors import AttackError, ClassifierError


class Expectation(nn.Module):
    """The classifier that averages a random model's probabilities over `draws` draws.

    Every pass uses the same draws, and every sample of a batch the same one, so that runs repeat
    and a sample's verdict does not depend on its batch. A point can be fitted to these draws:
    judge what an attack found by an `Expectation` of another seed. The graph of a gradient is held
    for all draws at once: memory and time are `draws` times those of the model.

    Randomness must come from torch's global generator. There is no float64 form, since its draws
    would be others.

    Attributes:
        module: The random model, in eval mode.
        draws: Draws averaged, >= 1.
        seed: Seed of the draws.
    """

    def __init__(self, module: nn.Module, draws: int = 20, seed: int = 0) -> None:
        super().__init__()
        if draws < 1:
            raise AttackError(f"draws is {draws}: it must be at least 1")
        self.module, self.draws, self.seed = module, draws, seed
        self.train(module.training)

    def forward(self, x: Tensor) -> Tensor:
        """Log of the mean probability of each class, (n, classes).

        Args:
            x: (n, *shape), float32.

        Raises:
            ClassifierError: `x` is float64.
        """
        if x.dtype == torch.float64:
            raise ClassifierError("a random model has no float64 form: its draws would be others")
        devices = range(torch.cuda.device_count()) if x.is_cuda else ()
        each = torch.func.vmap(lambda row: self.module(row[None])[0], randomness="same")
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.seed)
            found = [each(x).log_softmax(1) for _ in range(self.draws)]
        return torch.stack(found).logsumexp(0) - math.log(self.draws)


def held_by(judge: TiledClassifier) -> Callable[[Tensor, Tensor], Tensor]:
    """A `confirm` for attacks: a find counts where `judge` misclassifies it too.

    Args:
        judge: An `Expectation` of other draws (more of them than are searched on, if possible).
    """
    return lambda points, y: missed(judge.logits(points), y)
