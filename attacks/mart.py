"""MART: misclassification-aware adversarial training (Wang et al., ICLR 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from attacks.adversarial import Searching, check_not_negative


@dataclass(kw_only=True, eq=False)
class Mart(Searching):
    """`BCE(p(x'), y) + beta KL(p(x) || p(x')) (1 - p_y(x))`, x' from PGD (algorithm 1).

    BCE is the boosted cross-entropy, `-log p_y(x') - log(1 - max over k != y of p_k(x'))`
    All factors are trained, the last one too.

    Attributes:
        beta: Weight of the second term (lambda in the paper), >= 0.
    """

    beta: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(beta=self.beta)

    def value(
        self,
        model: nn.Module,
        x: Tensor,
        points: Tensor,
        y: Tensor,
        *,
        generator: Generator,
        scale: float,
    ) -> Tensor:
        """See `Adversarial`."""
        clean, logits = model(x).log_softmax(1), model(points)
        near = logits.log_softmax(1)
        rival = logits.scatter(1, y[:, None], -torch.inf).argmax(1, keepdim=True)
        # log(1 - p) as the logsumexp of the others: no cancellation where p is nearly 1
        beaten = near.scatter(1, rival, -torch.inf).logsumexp(1)
        boosted = F.nll_loss(near, y) - beaten.mean()
        apart = F.kl_div(near, clean, reduction="none", log_target=True).sum(1)
        unsure = 1 - clean.gather(1, y[:, None])[:, 0].exp()
        loss: Tensor = boosted + self.beta * (apart * unsure).mean()
        return loss
