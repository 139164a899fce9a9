"""Adult: the published file where it is at hand, a small stand-in for the rest."""

import gzip
import hashlib
import http.server
import os
import threading
from pathlib import Path

import pytest
import torch

from robustbench_c import data
from robustbench_c.data import adult
from robustbench_c.errors import DataError

PUBLISHED = Path(
    os.environ.get("ADULT_DATA_DIR", Path(__file__).parents[4] / "shared/data/uci/adult")
)
has_file = pytest.mark.skipif(
    not (PUBLISHED / adult.FILE).is_file(),
    reason="needs the published adult.data: set ADULT_DATA_DIR to its folder",
)
ROW = (
    "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, "
    "2174, 0, 40, United-States, <=50K"
)
OTHER = "90, ?, 77053, HS-grad, 9, Widowed, ?, Not-in-family, Black, Female, 0, 4356, 99, ?, >50K"
SMALL = "\n".join([*[ROW] * 4, *[OTHER] * 4]) + "\n\n"


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Eight rows stand for the published file; an empty cache, no mirror."""
    raw = SMALL.encode("ascii")
    monkeypatch.setattr(adult, "SHA256", hashlib.sha256(raw).hexdigest())
    monkeypatch.setattr(adult, "MIRRORS", ())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return raw


@has_file
def test_the_published_file():
    parts = [data.load("adult", split=s, data_dir=PUBLISHED) for s in ("train", "test", "all")]
    train, test, whole = parts
    assert [len(part) for part in parts] == [24_421, 8_140, 32_561]
    pinned = "9346387f7e59e18e68dd1bcde30d7db0d6c3efcef5bc44a8ebfb660ddab82c9c"
    assert {part.sha256 for part in parts} == {pinned}
    assert torch.equal(torch.cat([train.ids, test.ids]).sort().values, whole.ids)
    assert whole.y.bincount().tolist() == [24_720, 7_841]
    assert whole.shape == (91,)
    # no range is too wide, and no category lacks a row
    assert whole.x.amin(0).tolist() == [0] * 91
    assert whole.x.amax(0).tolist() == [1] * 91
    share = whole.x.double().mean(0)
    count = dict(
        zip(whole.feature_names, (share * len(whole)).round().long().tolist(), strict=True)
    )
    assert (count["sex=female"], count["race=Black"], count["workclass=?"]) == (10771, 3124, 1836)
    ids = test.ids.numpy().astype("<i8").tobytes()
    assert hashlib.sha256(ids).hexdigest()[:16] == "563fc564a6668ff3"


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("packed", [True, False])
def test_from_a_folder(stand_in, tmp_path, packed):
    name = f"{adult.FILE}.gz" if packed else adult.FILE
    (tmp_path / name).write_bytes(gzip.compress(stand_in) if packed else stand_in)
    whole = data.load("adult", split="all", data_dir=tmp_path)
    test = data.load("adult", data_dir=tmp_path)
    assert (len(whole), len(test), whole.classes) == (8, 2, ("<=50K", ">50K"))
    named = dict(zip(whole.feature_names, whole.x[0].tolist(), strict=True))
    assert named["age"] == pytest.approx((39 - 17) / 73)
    assert named["education-num"] == pytest.approx(0.8)
    assert named["capital-gain"] == pytest.approx(2174 / 99_999)
    ones = {name for name, value in named.items() if value == 1}
    assert ones == {
        "workclass=State-gov",
        "marital-status=Never-married",
        "occupation=Adm-clerical",
        "relationship=Not-in-family",
        "race=White",
        "sex=male",
        "native-country=United-States",
    }
    missing = dict(zip(whole.feature_names, whole.x[7].tolist(), strict=True))
    assert {n for n, v in missing.items() if v == 1 and "=?" in n} == {
        "workclass=?",
        "occupation=?",
        "native-country=?",
    }


def test_attributes(stand_in, tmp_path):
    (tmp_path / adult.FILE).write_bytes(stand_in)
    whole = data.load("adult", split="all", data_dir=tmp_path)
    assert [a.name for a in whole.attributes if a.protected] == ["race", "sex"]
    assert [a.name for a in whole.attributes if a.immutable and not a.one_hot] == ["age"]
    assert [a.name for a in whole.attributes if not a.immutable] == [
        "education-num",
        "capital-gain",
        "capital-loss",
        "hours-per-week",
    ]
    assert [c for a in whole.attributes for c in a.columns] == list(range(91))
    assert not {"fnlwgt", "education"} & {a.name for a in whole.attributes}


def test_without_the_file(stand_in, tmp_path):
    with pytest.raises(DataError, match=r"holds no adult\.data and no adult\.data\.gz"):
        data.load("adult", data_dir=tmp_path)
    with pytest.raises(DataError, match=r"adult: not on this machine.*--data-dir"):
        data.load("adult")


def test_another_file_of_that_name_is_refused(tmp_path):
    (tmp_path / adult.FILE).write_text(SMALL)
    with pytest.raises(DataError, match=r"not the published adult\.data, the sha256"):
        data.load("adult", data_dir=tmp_path)


@pytest.fixture
def mirror(tmp_path):
    """A web server on this machine, over the folder it returns with its address."""
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_download_is_checked_and_cached(stand_in, mirror, monkeypatch, tmp_path):
    folder, url = mirror
    cached = tmp_path / "cache" / "robustbench-c" / "adult"
    monkeypatch.setattr(adult, "MIRRORS", (url + "no/such/", url))
    (folder / adult.FILE).write_bytes(stand_in[:-20])
    with pytest.raises(DataError, match=r"not the published adult\.data"):
        data.load("adult")
    assert list(cached.iterdir()) == []
    (folder / adult.FILE).write_bytes(stand_in)
    fetched = data.load("adult", split="all")
    assert [path.name for path in cached.iterdir()] == [adult.FILE]
    monkeypatch.setattr(adult, "MIRRORS", ())
    assert data.load("adult", split="all").sha256 == fetched.sha256


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("State-gov", "State-govt", "line 1, attribute 'workclass' is 'State-govt', not one of"),
        ("39, ", "16, ", "line 1, attribute 'age' is '16', not a whole number from 17 to 90"),
        ("39, ", "39.5, ", "line 1, attribute 'age' is '39.5', not a whole number"),
        ("39, ", ", ", "line 1, attribute 'age' is '', not a whole number"),
        ("2174, ", "?, ", "line 1, attribute 'capital-gain' is '?', not a whole number"),
        ("<=50K", "<=50K.", "line 1, the label is '<=50K.', not one of <=50K, >50K"),
        ("39, ", "", "line 1 has 14 fields, not 15"),
        ("39, ", "39, 39, ", "line 1 has 16 fields, not 15"),
    ],
)
def test_parsing_errors(old, new, words):
    assert old in ROW
    with pytest.raises(DataError) as caught:
        adult.TABLE.dataset(ROW.replace(old, new, 1) + "\n" + OTHER, "file")
    message = str(caught.value)
    assert message.startswith(f"file: {words}")
    assert "\n" not in message


def test_an_empty_file():
    with pytest.raises(DataError, match="file: holds no samples"):
        adult.TABLE.dataset("\n \n", "file")
