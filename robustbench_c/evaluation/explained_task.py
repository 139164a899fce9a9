"""What the steps of a run about explanations work on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from torch import Tensor, nn

from attacks import memory
from attacks.classifier import CPU_TILES, CUDA_TILES, TiledClassifier
from attacks.explanations import Explanation, explain, seeds
from attacks.threat import ThreatModel
from certify.explaining import ExplanationCertifier
from certify.steepness import Steepness
from leaderboards.columns import Layout
from leaderboards.verdicts import Verdict
from robustbench_c.evaluation.explained_config import ExplainConfig
from robustbench_c.evaluation.steps import clean_rows
from robustbench_c.evaluation.task import Task


@dataclass(frozen=True, eq=False)
class ExplainedTask:
    """What the steps of a run about explanations work on.

    Attributes:
        task: Record, data, model.
        config: What is explained and how.
        k: Number of entries that the metric `top_k` ranks first.
        target: The class that is explained, (n,), in the order of the data: the predicted one.
        other: The class that the margin is over, (n,): the one that comes second; None unless
            margins are explained.
    """

    task: Task
    config: ExplainConfig
    k: int
    target: Tensor
    other: Tensor | None

    @property
    def model(self) -> nn.Module:
        """The model in float32."""
        return self.task.classifier.module

    @property
    def precise(self) -> nn.Module | None:
        """The model in float64, if it has such a form."""
        return None if self.task.precise is None else self.task.precise.module

    @property
    def threat(self) -> ThreatModel | None:
        """What the attacker may do to an input; None where weights alone may change."""
        fixed = self.task.threat.eps == 0 and self.config.budget is not None
        return None if fixed else self.task.threat

    @cached_property
    def steepness(self) -> Steepness:
        """The norm of the model's gradients, ready to be bounded."""
        x = self.task.x[:1]
        classes = self.task.classifier.logits(x).shape[1]
        return Steepness(self.model, x, self.task.threat, classes)

    @cached_property
    def slopes(self) -> ExplanationCertifier:
        """Bounds gradients of the explained score, whatever the explanation makes of them."""
        score = Explanation("gradient", self.config.explanation.of)
        return ExplanationCertifier(self.model, self.task.x[:1], score)

    def others(self, part: Tensor) -> Tensor | None:
        """`other` at the places `part`."""
        return None if self.other is None else self.other[part]

    def seeds(self, part: Tensor, classes: int) -> Tensor:
        """Weights of the logits at the places `part`."""
        found = seeds(self.config.explanation, self.target[part], classes, self.others(part))
        return found.to(self.task.x)

    def clean(self, part: Tensor, net: nn.Module | None = None) -> Tensor:
        """The explanations of the clean samples at the places `part`, in the model's own type."""
        net = net or self.model
        x = self.task.x[part]
        kind = next((w.dtype for w in net.parameters()), x.dtype)
        target, others = self.target[part], self.others(part)
        return memory.halving(
            lambda: explained(net, x.to(kind), target, self.config, others),
            "explanations",
            x.device,
        )


def explained(
    net: nn.Module, x: Tensor, target: Tensor, config: ExplainConfig, other: Tensor | None
) -> Tensor:
    """Explanations in tiles of one size, so that a sample's bits do not hang on the others."""
    size = memory.room((CUDA_TILES if x.is_cuda else CPU_TILES)[0])
    found = []
    for rows in torch.arange(len(x), device=x.device).split(size):  # type: ignore[no-untyped-call]
        padded = TiledClassifier.pad(rows, size)
        over = None if other is None else other[padded]
        value = explain(net, x[padded], target[padded], config.explanation, over)
        found.append(value.detach()[: len(rows)])
    return torch.cat(found)


def runner_up(logits: Tensor, target: Tensor) -> Tensor:
    """The class with the largest logit but for `target`, the first of several; (n,)."""
    return logits.scatter(1, target[:, None], -torch.inf).argmax(1)


def explained_clean_rows(
    logits: Tensor,
    y: Tensor,
    ids: Tensor,
    value: Tensor,
    passes: int,
    seconds: float,
    layout: Layout,
) -> pd.DataFrame:
    """Rows of the step `clean`: none is `wrong`, and an explanation that is NaN or Inf an error.

    Args:
        logits: Of the clean samples, (n, classes).
        y: True classes.
        ids: Sample ids.
        value: Their explanations, (n, *shape).
        passes: Passes that one explanation takes.
        seconds: Time in all.
        layout: The run's.
    """
    rows = clean_rows(logits, y, ids, seconds, layout=layout)
    strange = (~value.flatten(1).isfinite().all(1)).cpu().tolist()
    rows["verdict"] = [str(Verdict.ERROR) if bad else None for bad in strange]
    rows["detail"] = ["the clean explanation is NaN or Inf" if bad else None for bad in strange]
    rows["forwards"] += passes
    rows["backwards"] = passes
    return rows
