"""scikit-learn's two sets, and their fixed splits."""

import hashlib

import numpy as np
import pytest
import torch

from robustbench_c import data


@pytest.mark.parametrize(
    ("name", "sizes", "sha256"),
    [
        (
            "digits",
            (1347, 450, 1797),
            "0e49143367d32179917b277c6062b50051b41aad70fb6f53bfebf2ce9c634eea",
        ),
        (
            "breast-cancer",
            (427, 142, 569),
            "54c8640050b914f69c1df104e4e6f22f063c26aea7f3b294e58282ea3e75062d",
        ),
    ],
)
def test_splits_part_the_whole_set(name, sizes, sha256):
    train, test, whole = (data.load(name, split=split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(whole)) == sizes
    assert (train.split, test.split, whole.split) == ("train", "test", "all")
    assert {train.sha256, test.sha256, whole.sha256} == {sha256}
    assert torch.equal(torch.cat([train.ids, test.ids]).sort().values, whole.ids)
    assert torch.equal(whole.x[test.ids], test.x)
    assert torch.equal(whole.y[test.ids], test.y)
    share = test.y.bincount() / whole.y.bincount()
    assert bool(((share > 0.24) & (share < 0.26)).all())


@pytest.mark.parametrize(
    ("name", "digest"), [("digits", "78d5b4207a8505a6"), ("breast-cancer", "ef730f38af60409f")]
)
def test_the_test_split_never_moves(name, digest):
    ids = data.load(name).ids.numpy().astype("<i8").tobytes()
    assert hashlib.sha256(ids).hexdigest()[:16] == digest


def test_digits_are_images_in_sixteenths():
    digits = data.load("digits", split="all")
    assert digits.shape == (1, 8, 8)
    assert np.array_equal(np.unique(digits.x.numpy() * 16), np.arange(17))
    assert digits.x[0, 0, 0].mul(16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert (float(digits.lower), float(digits.upper)) == (0, 1)


def test_breast_cancer_has_a_box_per_feature():
    whole = data.load("breast-cancer", split="all")
    test = data.load("breast-cancer")
    assert whole.shape == whole.lower.shape == whole.upper.shape == (30,)
    assert whole.classes == ("malignant", "benign")
    area = whole.feature_names.index("mean area")
    assert float(whole.lower[area]) == 143.5
    assert float(whole.upper[area]) == 2501.0
    assert torch.equal(test.lower, whole.lower)
    assert not torch.equal(test.x.amin(0), whole.lower)
