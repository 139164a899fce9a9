"""Features by name, by attribute, by place."""

import pytest
import torch

from robustbench_c.data import Attribute, from_tensors, load
from robustbench_c.data.features import feature_places
from robustbench_c.errors import UsageError

NAMES = ("pay", "sex=a", "sex=b", "age", "zip")
ATTRIBUTES = (
    Attribute("pay", (0,)),
    Attribute("sex", (1, 2), one_hot=True, protected=True),
    Attribute("age", (3,), protected=True),
)


@pytest.fixture
def people():
    x = torch.tensor([[0.5, 1, 0, 0.2, 0], [0.1, 0, 1, 0.9, 1]])
    return from_tensors(x, torch.tensor([0, 1]), feature_names=NAMES, attributes=ATTRIBUTES)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("pay", (0,)),
        ("sex", (1, 2)),
        ("sex=b", (2,)),
        ("protected", (1, 2, 3)),
        (" age , sex=b,zip ", (2, 3, 4)),
        ("sex,sex=a,1", (1, 2)),
        ("4,0", (0, 4)),
    ],
)
def test_what_a_name_stands_for(people, text, places):
    assert feature_places(people, text, "--features") == places


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("aeg", "no feature 'aeg'; did you mean 'age'?"),
        ("pay,se", "no feature 'se'; did you mean 'sex'?"),
        ("5", "no feature '5'; known: protected, pay, sex, age"),
        ("-1", "no feature '-1'"),
        ("", "no feature ''"),
        ("sex,", "no feature ''"),
        ("²", "no feature '²'"),
    ],
)
def test_what_is_no_feature(people, text, words):
    with pytest.raises(UsageError) as caught:
        feature_places(people, text, "--features")
    assert str(caught.value).startswith(f"--features: {words}")


def test_a_features_own_name_goes_first():
    x = torch.tensor([[0.5, 1, 0]])
    odd = from_tensors(
        x,
        torch.tensor([0]),
        feature_names=("1", "protected", "a"),
        attributes=(Attribute("a", (0,)), Attribute("age", (2,), protected=True)),
    )
    assert feature_places(odd, "1", "it") == (0,)
    assert feature_places(odd, "protected", "it") == (1,)
    assert feature_places(odd, "a", "it") == (2,)
    assert feature_places(odd, "age", "it") == (2,)


def test_sets_without_attributes():
    cells = load("breast-cancer")
    assert feature_places(cells, "mean radius,29", "it") == (0, 29)
    with pytest.raises(UsageError, match="no feature 'protected'"):
        feature_places(cells, "protected", "it")
    images = load("fashion-mnist-mini").head(1)
    assert feature_places(images, "783", "it") == (783,)
    with pytest.raises(UsageError, match="places go from 0 to 783"):
        feature_places(images, "784", "it")


def test_shipped_names():
    credit = load("german-credit")
    assert feature_places(credit, "status-and-sex", "it") == (32, 33, 34, 35)
    assert feature_places(credit, "protected", "it") == credit.protected_columns
    assert not any("," in name for name in credit.feature_names)
    with pytest.raises(UsageError, match="did you mean 'status-and-sex'"):
        feature_places(credit, "sex", "it")
