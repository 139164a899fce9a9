"""What is checked of attributes and names of features."""

import re

import pytest
import torch

from robustbench_c.data import Attribute, from_tensors
from robustbench_c.errors import DataError

X = torch.tensor([[0.5, 1, 0, 0.2], [0.1, 0, 1, 0.9]])
Y = torch.tensor([0, 1])
NAMES = ("pay", "sex=a", "sex=b", "age")
SEX = Attribute("sex", (1, 2), one_hot=True, protected=True)


def test_what_follows_from_what():
    assert not Attribute("pay", (0,)).immutable
    assert Attribute("pay", (0,), immutable=True).immutable
    assert Attribute("age", (0,), protected=True).immutable
    assert Attribute("job", (0, 1), one_hot=True).immutable
    assert not Attribute("job", (0, 1), one_hot=True).protected


def test_columns_of_a_set():
    age = Attribute("age", (3,), immutable=True)
    made = from_tensors(X, Y, feature_names=NAMES, attributes=(age, SEX, Attribute("pay", (0,))))
    assert made.protected_columns == (1, 2)
    assert made.immutable_columns == (1, 2, 3)
    assert made.immutable_mask.tolist() == [False, True, True, True]
    assert made.head(1).attributes == made.attributes
    plain = from_tensors(X, Y)
    assert plain.protected_columns == plain.immutable_columns == plain.attributes == ()
    assert plain.immutable_mask is None
    assert plain.sha256 == made.sha256


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"columns": ()}, "at least one"),
        ({"columns": (2, 1), "one_hot": True}, "have to ascend"),
        ({"columns": (1, 1), "one_hot": True}, "have to ascend"),
        ({"columns": (-1,)}, "there is no column -1"),
        ({"columns": (0, 1)}, "a number takes one column, not 2"),
    ],
)
def test_impossible_attributes(arguments, words):
    with pytest.raises(DataError, match=words):
        Attribute("it", **arguments)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"feature_names": NAMES[:3]}, "3 names for 4 features"),
        ({"feature_names": ("a", "b", "a", "c")}, "two features are called 'a'"),
        ({"attributes": (SEX, Attribute("sex", (0,)))}, "two attributes are called 'sex'"),
        ({"attributes": (SEX, Attribute("b", (2,)))}, "column 2 belongs to both 'sex' and 'b'"),
        ({"attributes": (Attribute("far", (4,)),)}, "has column 4, but samples have 4"),
        ({"x": X[:, None]}, "its samples are no vectors"),
        ({"x": X.clamp(max=0.9)}, "sample 0 is not one-hot in attribute 'sex'"),
        (
            {"x": torch.tensor([[0, 1.0, 0, 0], [0, 1, 1, 0]])},
            "sample 1 is not one-hot in attribute 'sex'",
        ),
        ({"x": torch.zeros(2, 4)}, "sample 0 is not one-hot"),
    ],
)
def test_what_does_not_fit_the_samples(changes, words):
    arguments = {"x": X, "y": Y, "feature_names": NAMES, "attributes": (SEX,), "name": "it"}
    with pytest.raises(DataError, match="it: .*" + re.escape(words)):
        from_tensors(**(arguments | changes))
