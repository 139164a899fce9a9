"""The two small sets that come with scikit-learn: digits and breast-cancer."""

from __future__ import annotations

import torch

from robustbench_c.data.dataset import Dataset, build
from robustbench_c.data.splits import take

LICENCE = "CC BY 4.0 (UCI Machine Learning Repository)"


def load_digits(split: str) -> Dataset:
    """Return 8x8 grey images of handwritten digits, (n, 1, 8, 8).

    The counts 0..16 that the set holds are divided by 16 (exact in float32): the box is [0, 1], and
    `eps` has the unit it has for other images.

    Args:
        split: "train" (1,347), "test" (450) or "all" (1,797), see `splits.take`.
    """
    # Imported late: scikit-learn takes a second to import, which the other sets need not wait for.
    from sklearn import datasets

    bunch = datasets.load_digits()
    whole = build(
        name="digits",
        x=torch.from_numpy(bunch.images[:, None] / 16),
        y=torch.from_numpy(bunch.target),
        lower=torch.tensor(0.0),
        upper=torch.tensor(1.0),
        classes=tuple(str(name) for name in bunch.target_names),
        split="all",
        licence=LICENCE,
        source="https://doi.org/10.24432/C50P49, as bundled with scikit-learn",
    )
    return take(whole, split)


def load_breast_cancer(split: str) -> Dataset:
    """Return the 30 measurements of the Wisconsin diagnostic breast cancer set, (n, 30).

    They stay in their raw units, which differ by five orders of magnitude between features: `eps`
    has to be per feature or relative. The box is each feature's range over the whole set.

    Args:
        split: "train" (427), "test" (142) or "all" (569), see `splits.take`.
    """
    from sklearn import datasets

    bunch = datasets.load_breast_cancer()
    x = torch.from_numpy(bunch.data).float()
    whole = build(
        name="breast-cancer",
        x=x,
        y=torch.from_numpy(bunch.target),
        lower=x.amin(0),
        upper=x.amax(0),
        classes=tuple(str(name) for name in bunch.target_names),
        split="all",
        licence=LICENCE,
        source="https://doi.org/10.24432/C5DW2B, as bundled with scikit-learn",
        feature_names=tuple(str(name) for name in bunch.feature_names),
    )
    return take(whole, split)
