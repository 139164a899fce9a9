"""Splits of sets that come without any."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from robustbench_c.data.dataset import Dataset

_TEST_SHARE = 0.25
_SEED = 0


def take(whole: Dataset, split: str) -> Dataset:
    """Return "train", "test" or "all" of a set that comes without splits, in its own order.

    The test split is a quarter of each class, drawn with `RandomState(0)`, whose stream numpy has
    frozen (that of newer generators may change between versions).
    """
    if split == "all":
        return whole
    random = np.random.RandomState(_SEED)
    test = np.zeros(len(whole), dtype=bool)
    for label in range(whole.n_classes):
        members = random.permutation(np.flatnonzero(whole.y.numpy() == label))
        test[members[: round(_TEST_SHARE * len(members))]] = True
    mask = test if split == "test" else ~test
    taken = whole.subset(torch.from_numpy(np.flatnonzero(mask)))
    return dataclasses.replace(taken, split=split)
