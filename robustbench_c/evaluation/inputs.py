"""Whether a model and a set of data fit together."""

from __future__ import annotations

import torch
from scipy import stats
from torch import Tensor

from attacks.threat import ThreatModel
from robustbench_c.data import Dataset
from robustbench_c.errors import DataError, ModelError


def check_data(data: Dataset) -> None:
    """Check samples and labels, which need not have come through `data.load`.

    Raises:
        DataError: Names the first sample outside of the box or with a label of no class.
    """
    strange = (data.y < 0) | (data.y >= data.n_classes)
    if bool(strange.any()):
        row = int(strange.nonzero()[0])
        raise DataError(
            f"{data.name}: sample {int(data.ids[row])} has the label {int(data.y[row])}, "
            f"but there are {data.n_classes} classes"
        )
    outside = ~((data.x >= data.lower) & (data.x <= data.upper))
    if bool(outside.any()):
        row, *place = outside.nonzero()[0].tolist()
        value = data.x[(row, *place)].item()
        low, high = (e.expand(data.shape)[tuple(place)].item() for e in (data.lower, data.upper))
        raise DataError(
            f"{data.name}: sample {int(data.ids[row])} has the value {value:g} at "
            f"{tuple(place)}, outside of its box [{low:g}, {high:g}]"
        )


def check_logits(logits: Tensor, data: Dataset) -> None:
    """Check the clean logits of all samples.

    Raises:
        ModelError: A NaN or Inf.
        DataError: Another number of classes than the data have.
    """
    finite = torch.isfinite(logits).all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise ModelError(f"the model's logits are NaN or Inf on sample {int(data.ids[row])}")
    unnamed = data.classes == tuple(str(label) for label in range(data.n_classes))
    outputs = logits.shape[1]
    if unnamed and outputs < data.n_classes:
        row = int(data.y.argmax())
        raise DataError(
            f"the model has {outputs} classes, but sample {int(data.ids[row])} of {data.name} has "
            f"the label {int(data.y[row])}"
        )
    if not unnamed and outputs != data.n_classes:
        raise DataError(
            f"the model has {outputs} classes, but {data.name} has {data.n_classes}: "
            "evaluate it on the data it was made for"
        )


def chance_notice(correct: Tensor, data: Dataset) -> str | None:
    """A warning when clean accuracy is not clearly above that of always naming one class."""
    k, n = int(correct.sum()), len(correct)
    chance = float(torch.bincount(data.y).max()) / n
    if k / n > (1 + chance) / 2:  # too few samples for the test below, but no doubt
        return None
    if chance == 1 or stats.binomtest(k, n, chance, alternative="greater").pvalue < 0.05:
        return None
    return (
        f"clean accuracy {k / n:.1%} is near chance ({chance:.1%}): is a normalisation missing "
        "(--mean, --std), or are the labels in another order?"
    )


def immutable_notice(threat: ThreatModel, data: Dataset) -> str | None:
    """What a settled threat model holds fixed, where the data's attributes say what it should."""
    if threat.immutable is None or not data.attributes:
        return None
    held = int(threat.immutable.sum())
    own = data.immutable_mask
    if not held:
        return "every feature may change, those of one-hot and protected attributes too"
    line = f"{held} of {threat.immutable.numel()} features may not change"
    if own is not None and torch.equal(threat.immutable, own):
        return f"{line}: those of protected, one-hot and immutable attributes"
    return line
