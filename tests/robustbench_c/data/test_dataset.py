"""The checks that every set passes, its hash, and its subsets."""

import hashlib

import pytest
import torch

from robustbench_c.data import Dataset, from_tensors
from robustbench_c.errors import DataError


def small(**changes) -> Dataset:
    arguments = {
        "x": torch.linspace(0, 1, 12).reshape(3, 2, 2),
        "y": torch.tensor([0, 2, 1]),
        "name": "small",
    }
    return from_tensors(**(arguments | changes))


def test_fields():
    data = small(x=torch.linspace(0, 1, 12, dtype=torch.float64).reshape(3, 2, 2))
    assert data.x.dtype == data.lower.dtype == data.upper.dtype == torch.float32
    assert data.y.dtype == data.ids.dtype == torch.int64
    assert len(data) == 3
    assert data.shape == (2, 2)
    assert data.n_classes == 3
    assert data.classes == ("0", "1", "2")
    assert data.ids.tolist() == [0, 1, 2]
    assert data.split == "all"


def test_from_tensors_copies():
    x = torch.zeros(2, 3)
    data = from_tensors(x, torch.tensor([0, 1]))
    x += 1
    assert data.x.max() == 0


def test_non_contiguous_input_becomes_contiguous():
    x = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    data = from_tensors(x.T, torch.zeros(4, dtype=torch.int32))
    assert data.x.is_contiguous()
    assert torch.equal(data.x, x.T)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": torch.zeros(3, 2, dtype=torch.uint8)}, "x is torch.uint8"),
        ({"x": torch.zeros(3)}, "x has shape (3,)"),
        ({"x": torch.zeros(0, 4), "y": torch.zeros(0, dtype=torch.int64)}, "at least one sample"),
        ({"x": torch.zeros(2, 4)}, "x holds 2 samples, but y has shape (3,)"),
        ({"y": torch.tensor([0.0, 1.0, 2.0])}, "labels are torch.float32"),
        ({"y": torch.tensor([0, -1, 2])}, "sample 1 has the label -1"),
        ({"y": torch.tensor([0, 1, 10**12])}, "sample 2 has the label 1000000000000"),
        ({"classes": ("cat", "dog")}, "sample 1 has the label 2, but only 2 classes"),
        ({"classes": ("cat", "dog", "cat")}, "two classes have the same name"),
        ({"classes": ("cat",)}, "a classifier has at least 2"),
        ({"lower": 2.0}, "lower bound above its upper"),
        ({"upper": float("inf")}, "upper bound is not finite"),
        ({"lower": torch.zeros(3)}, "lower bound has shape (3,), a sample has (2, 2)"),
        ({"upper": 0.95}, "sample 2, feature (1, 1) is 1, outside of its box [0, 0.949999988]"),
        ({"lower": torch.tensor([[0, 0.1], [0, 0]])}, "sample 0, feature (0, 1) is 0.09090"),
        ({"x": torch.tensor([[0.5, 0.5], [0.5, float("nan")], [2.0, 0]])}, "feature (1,) is nan"),
        ({"x": torch.full((3, 1), 1e300, dtype=torch.float64)}, "is inf, not a finite number"),
    ],
)
def test_bad_input_is_one_line(changes, words):
    with pytest.raises(DataError) as caught:
        small(**changes)
    assert words in str(caught.value)
    assert str(caught.value).startswith("small: ")
    assert "\n" not in str(caught.value)


def test_box_broadcasts_to_a_sample():
    data = small(upper=torch.tensor([[1.0], [2.0]]))
    assert data.upper.tolist() == [[1, 1], [2, 2]]
    assert data.lower.shape == ()


def test_constant_labels_still_make_two_classes():
    assert small(y=torch.zeros(3, dtype=torch.int64)).n_classes == 2


def test_subset_keeps_ids_and_hash():
    data = small()
    twice = data.subset([2, 0]).subset(torch.tensor([1]))
    assert twice.ids.tolist() == [0]
    assert torch.equal(data.subset([2, 0]).x, data.x[[2, 0]])
    assert data.subset([2, 0]).y.tolist() == [1, 0]
    assert twice.sha256 == data.sha256
    assert data.subset([1, 2]).head(1).ids.tolist() == [1]


@pytest.mark.parametrize("indices", [[], [3], [-1], [1, 1], [0.5], [True, False, True], [[0], [1]]])
def test_bad_subsets(indices):
    with pytest.raises(DataError, match="small: "):
        small().subset(indices)


@pytest.mark.parametrize("n", [0, -1, 4])
def test_bad_heads(n):
    with pytest.raises(DataError, match=f"small .all.: {n} samples asked for, the set has 3"):
        small().head(n)


def test_hash_is_over_the_documented_bytes():
    data = from_tensors(
        torch.tensor([[0.5], [1.0]]), torch.tensor([1, 0]), classes=("é", "b"), lower=torch.zeros(1)
    )
    form = (
        b"robustbench-c dataset 1\n"
        b"x <f4 [2, 1]\n\x00\x00\x00\x3f\x00\x00\x80\x3f"
        b"y <i8 [2]\n\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        b"lower <f4 [1]\n\0\0\0\0"
        b"upper <f4 []\n\x00\x00\x80\x3f"
        rb'["\u00e9", "b"]'
    )
    assert data.sha256 == hashlib.sha256(form).hexdigest()


def test_hash_sees_all_content_and_nothing_else():
    x = torch.linspace(0, 1, 12).reshape(3, 2, 2)
    changed = x.clone()
    changed[1, 0, 0] += 1e-6
    variants = [
        small(),
        small(x=changed),
        small(x=x.reshape(3, 4)),
        small(y=torch.tensor([0, 2, 2])),
        small(lower=-1.0),
        small(upper=2.0),
        small(classes=("a", "b", "c")),
    ]
    assert len({data.sha256 for data in variants}) == len(variants)
    assert small(name="other").sha256 == small().sha256
