"""Whether a model, a set of data and a threat model fit together."""

from __future__ import annotations

import torch
from scipy import stats
from torch import Tensor

from attacks.driver import inside_box
from attacks.threat import ThreatModel
from robustbench_c.data import Dataset
from robustbench_c.errors import DataError, ModelError


def check_box(data: Dataset, threat: ThreatModel) -> None:
    """Check that every sample lies in the threat model's box.

    Raises:
        DataError: Names the first sample outside, its feature and value.
    """
    inside = inside_box(data.x, threat)
    if bool(inside.all()):
        return
    row = int((~inside).nonzero()[0])
    x = data.x[row]
    outside = ~((x >= threat.lower) & (x <= threat.upper))
    place = tuple(outside.nonzero()[0].tolist())
    low, high = (end.expand(x.shape)[place].item() for end in (threat.lower, threat.upper))
    raise DataError(
        f"{data.name}: sample {int(data.ids[row])} has the value {x[place].item():g} at "
        f"{place}, outside of its box [{low:g}, {high:g}]"
    )


def check_logits(logits: Tensor, data: Dataset) -> None:
    """Check the clean logits of all samples.

    Raises:
        ModelError: A NaN or Inf, or a number of classes that does not fit the data's.
    """
    finite = torch.isfinite(logits).all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise ModelError(f"the model's logits are NaN or Inf on sample {int(data.ids[row])}")
    unnamed = data.classes == tuple(str(label) for label in range(data.n_classes))
    outputs = logits.shape[1]
    if outputs < data.n_classes or (outputs > data.n_classes and not unnamed):
        raise ModelError(
            f"the model has {outputs} classes, but {data.name} has {data.n_classes}: "
            "evaluate it on the data it was made for"
        )


def chance_notice(correct: Tensor, data: Dataset) -> str | None:
    """A warning when clean accuracy is not clearly above that of always naming one class."""
    k, n = int(correct.sum()), len(correct)
    chance = float(torch.bincount(data.y).max()) / n
    if chance == 1 or stats.binomtest(k, n, chance, alternative="greater").pvalue < 0.05:
        return None
    return (
        f"clean accuracy {k / n:.1%} is near chance ({chance:.1%}): is a normalisation missing "
        "(--mean, --std), or are the labels in another order?"
    )
