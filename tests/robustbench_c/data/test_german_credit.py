"""German credit, as it is shipped: its encoding, its attributes, its notice, a damaged file."""

import csv
import gzip
import hashlib

import pytest
import torch

from robustbench_c import data
from robustbench_c.data import german_credit
from robustbench_c.data.german_credit import FILE, SHA256, TABLE
from robustbench_c.data.idx import read_bytes
from robustbench_c.data.tabular import Category, Number
from robustbench_c.errors import DataError


@pytest.fixture(scope="module")
def whole():
    return data.load("german-credit", split="all")


@pytest.fixture(scope="module")
def rows():
    text = read_bytes(FILE).decode("ascii")
    return list(csv.reader(text.splitlines(), delimiter=" "))


def test_splits_and_hash(whole):
    train, test = data.load("german-credit", split="train"), data.load("german-credit")
    assert (len(train), len(test), len(whole)) == (750, 250, 1000)
    assert (train.split, test.split, whole.split) == ("train", "test", "all")
    pinned = "b3eed75df14201b9cf5ac6b19142ae44546b4afa969cf2268a3625ebb52293c1"
    assert {train.sha256, test.sha256, whole.sha256} == {pinned}
    assert torch.equal(torch.cat([train.ids, test.ids]).sort().values, whole.ids)
    assert torch.equal(whole.x[test.ids], test.x)
    assert whole.y.bincount().tolist() == [700, 300]
    assert test.y.bincount().tolist() == [175, 75]
    ids = test.ids.numpy().astype("<i8").tobytes()
    assert hashlib.sha256(ids).hexdigest()[:16] == "d9a995001799fb7e"
    assert whole.classes == ("good", "bad")
    assert test.attributes == train.attributes == whole.attributes


def test_every_column_spans_the_unit_interval(whole):
    """So no range is too wide, no code lacks a row, and none was put into another's column."""
    assert whole.shape == (61,)
    assert (float(whole.lower), float(whole.upper)) == (0, 1)
    assert whole.x.amin(0).tolist() == [0] * 61
    assert whole.x.amax(0).tolist() == [1] * 61


def test_attributes_cover_all_columns(whole):
    assert len(whole.attributes) == 20
    assert [c for a in whole.attributes for c in a.columns] == list(range(61))
    for attribute in whole.attributes:
        names = [whole.feature_names[column] for column in attribute.columns]
        if attribute.one_hot:
            assert all(name.startswith(f"{attribute.name}=") for name in names)
            group = whole.x[:, list(attribute.columns)]
            assert torch.equal(group.sum(1), torch.ones(1000))
            assert bool(((group == 0) | (group == 1)).all())
        else:
            assert names == [attribute.name]


def test_protected_and_immutable(whole):
    protected = [a.name for a in whole.attributes if a.protected]
    assert protected == ["status-and-sex", "age", "foreign-worker"]
    assert [whole.feature_names[c] for c in whole.protected_columns] == [
        "status-and-sex=male divorced or separated",
        "status-and-sex=female divorced or separated or married",
        "status-and-sex=male single",
        "status-and-sex=male married or widowed",
        "age",
        "foreign-worker=yes",
        "foreign-worker=no",
    ]
    free = sorted(set(range(61)) - set(whole.immutable_columns))
    assert [whole.feature_names[c] for c in free] == [
        "duration",
        "credit-amount",
        "installment-rate",
        "residence-since",
        "existing-credits",
        "people-liable",
    ]
    assert (~whole.immutable_mask).nonzero()[:, 0].tolist() == free


def test_values_go_back_to_those_of_the_file(whole, rows):
    """Decoded without the encoder's own tables of places."""
    for sample in (0, 1, 499, 999):
        for field, attribute, value in zip(
            TABLE.fields, whole.attributes, rows[sample], strict=False
        ):
            x = whole.x[sample, list(attribute.columns)].double()
            if isinstance(field, Number):
                assert round(field.low + float(x) * (field.high - field.low)) == int(value)
            else:
                name = whole.feature_names[attribute.columns[int(x.argmax())]]
                assert name == f"{attribute.name}={field.codes[value]}"
        assert whole.classes[int(whole.y[sample])] == {"1": "good", "2": "bad"}[rows[sample][-1]]


def test_the_ranges_are_those_of_the_file(rows):
    for field, values in zip(TABLE.fields, zip(*rows, strict=True), strict=False):
        if isinstance(field, Number):
            numbers = [int(value) for value in values]
            assert (field.low, field.high) == (min(numbers), max(numbers)), field.name
        elif isinstance(field, Category):
            assert set(field.codes) == set(values), field.name


def test_a_damaged_package_is_named(monkeypatch, tmp_path):
    other = tmp_path / "german-credit.data.gz"
    other.write_bytes(gzip.compress(read_bytes(FILE).replace(b"A91", b"A92", 1)))
    monkeypatch.setattr(german_credit, "FILE", other)
    with pytest.raises(DataError, match="not the published file; install the package anew"):
        data.load("german-credit")


def test_the_notice_names_creator_licence_and_change():
    notice = (FILE.parent / "GERMAN-CREDIT-LICENSE.txt").read_text("utf-8")
    for word in ("Hans Hofmann", "creativecommons.org/licenses/by/4.0", "gzip", "10.24432/C5NC77"):
        assert word in notice
    assert len(SHA256) == 64
