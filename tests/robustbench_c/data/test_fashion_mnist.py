"""Fashion-MNIST: the shipped part, the IDX files, where they are looked for, the download."""

import gzip
import http.server
import runpy
import struct
import sys
import threading
from pathlib import Path

import pytest
import torch

from robustbench_c import data
from robustbench_c.data import fashion_mnist
from robustbench_c.data.fashion_mnist import ASSETS, DEBIAN_FOLDER, MINI_FILES
from robustbench_c.data.idx import parse_idx, read_bytes
from robustbench_c.errors import DataError

ROOT = Path(__file__).parents[3]
TEST_NAMES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
has_debian = pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="needs Debian's dataset-fashion-mnist"
)


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A machine without the Debian package, with an empty cache and no mirror."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "none")
    monkeypatch.setattr(fashion_mnist, "MIRRORS", ())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "robustbench-c" / "fashion-mnist"


@pytest.fixture
def mini_as_test(monkeypatch):
    """The shipped files stand for the test set, so that no test needs the whole one."""
    monkeypatch.setitem(fashion_mnist.FILES, "test", MINI_FILES)


def test_mini():
    mini = data.load("fashion-mnist-mini")
    assert (len(mini), mini.shape, mini.n_classes, mini.split) == (1000, (1, 28, 28), 10, "test")
    assert mini.sha256 == "0ce3a2add3453db4e680268531693dad7decac844e76d1b2702c27a33f44c28a"
    assert mini.y[:5].tolist() == [9, 2, 1, 1, 6]
    assert mini.x.min() == 0
    assert mini.x.max() == 1
    assert mini.ids.tolist() == list(range(1000))


def test_mini_ships_its_licence():
    assert "Copyright © 2017 Zalando SE" in (ASSETS / "FASHION-MNIST-LICENSE.txt").read_text(
        "utf-8"
    )


@has_debian
def test_mini_is_the_head_of_the_test_set():
    mini, full = data.load("fashion-mnist-mini"), data.load("fashion-mnist")
    head = full.head(1000)
    assert full.sha256 == "134008ced736655d8abb1ab3944fc22ef4daf7348c15ef98a107a76340d0e99d"
    assert torch.equal(mini.x, head.x)
    assert torch.equal(mini.y, head.y)
    assert torch.equal(mini.ids, head.ids)
    assert mini.classes == head.classes


@has_debian
def test_training_set():
    train = data.load("fashion-mnist", split="train")
    assert (len(train), train.shape, train.split) == (60_000, (1, 28, 28), "train")
    assert train.sha256 == "217294f6fb10ca71dd395bd4119cd4aefacdfbc750c4c62cc2c420145491893f"
    assert train.y.bincount().tolist() == [6000] * 10


@has_debian
def test_the_script_makes_the_shipped_bytes(tmp_path, monkeypatch):
    made = []
    for attempt in ("first", "second"):
        out = tmp_path / attempt
        out.mkdir()
        monkeypatch.setattr(sys, "argv", ["make", "--out", str(out)])
        runpy.run_path(str(ROOT / "scripts/make_fashion_mnist_mini.py"), run_name="__main__")
        made.append([(out / f"{file.name}.gz").read_bytes() for file in MINI_FILES])
    assert made[0] == made[1]
    for file in MINI_FILES:
        name = f"{file.name}.gz"
        assert read_bytes(tmp_path / "first" / name) == read_bytes(ASSETS / name)


@pytest.mark.usefixtures("mini_as_test", "elsewhere")
def test_data_dir_packed_or_not(tmp_path):
    mini = data.load("fashion-mnist-mini")
    for packed in (True, False):
        folder = tmp_path / str(packed)
        folder.mkdir()
        for file in MINI_FILES:
            raw = read_bytes(ASSETS / f"{file.name}.gz")
            name = f"{file.name}.gz" if packed else file.name
            (folder / name).write_bytes(gzip.compress(raw, 1) if packed else raw)
        loaded = data.load("fashion-mnist", data_dir=folder)
        assert loaded.sha256 == mini.sha256


def test_data_dir_without_the_files(tmp_path):
    with pytest.raises(DataError, match="holds no t10k-images-idx3-ubyte and no"):
        data.load("fashion-mnist", data_dir=tmp_path)


def test_another_set_under_the_same_name_is_refused(tmp_path):
    for name, magic, shape in zip(TEST_NAMES, (3, 1), ((2, 28, 28), (2,)), strict=True):
        size = 2 * (784 if magic == 3 else 1)
        header = bytes((0, 0, 8, magic)) + struct.pack(f">{len(shape)}I", *shape)
        (tmp_path / name).write_bytes(header + bytes(size))
    with pytest.raises(DataError, match="not the original t10k-images-idx3-ubyte"):
        data.load("fashion-mnist", data_dir=tmp_path)


HEADER = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2, 1, 2)


def test_parse_idx():
    array = parse_idx(HEADER + bytes([1, 2, 3, 255]), 3, "file")
    assert array.tolist() == [[[1, 2]], [[3, 255]]]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not an IDX file"),
        (HEADER[:10], "not an IDX file"),
        (b"\0\0\x0d\x03" + HEADER[4:] + bytes(4), "not an IDX file"),
        (HEADER + bytes(3), "truncated, 19 bytes where its header says 20"),
        (HEADER + bytes(5), "too long"),
        (HEADER[:4] + b"\xff" * 12, "truncated"),
    ],
)
def test_corrupt_idx(raw, words):
    with pytest.raises(DataError, match=f"file: {words}"):
        parse_idx(raw, 3, "file")


@pytest.mark.parametrize("fault", ["cut", "flip", "magic only"])
def test_corrupt_gzip(tmp_path, fault):
    packed = bytearray(gzip.compress(HEADER + bytes(range(200)), mtime=0))
    if fault == "flip":
        packed[60] ^= 0xFF
    path = tmp_path / "file.gz"
    path.write_bytes({"cut": packed[:-20], "flip": packed, "magic only": packed[:2]}[fault])
    with pytest.raises(DataError, match=r"file\.gz: cannot be read") as caught:
        read_bytes(path)
    assert "\n" not in str(caught.value)


def test_nothing_here_and_no_network_says_what_to_do(elsewhere):
    with pytest.raises(DataError) as caught:
        data.load("fashion-mnist")
    message = str(caught.value)
    assert "apt-get install dataset-fashion-mnist" in message
    assert "--data-dir" in message
    assert "\n" not in message
    assert list(elsewhere.iterdir()) == []


def test_cache_that_cannot_be_written(elsewhere):
    elsewhere.parents[1].write_text("a file where the cache should be")
    with pytest.raises(DataError, match=r"fashion-mnist cannot be written .*apt-get install"):
        data.load("fashion-mnist")


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


@pytest.mark.usefixtures("mini_as_test")
def test_download_goes_on_to_the_next_mirror_and_is_cached(elsewhere, mirror, monkeypatch):
    folder, url = mirror
    for file in MINI_FILES:
        name = f"{file.name}.gz"
        (folder / name).write_bytes((ASSETS / name).read_bytes())
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (url + "no/such/", url))
    expected = data.load("fashion-mnist-mini").sha256
    assert data.load("fashion-mnist").sha256 == expected
    assert sorted(path.name for path in elsewhere.iterdir()) == [f"{f.name}.gz" for f in MINI_FILES]
    monkeypatch.setattr(fashion_mnist, "MIRRORS", ())
    assert data.load("fashion-mnist").sha256 == expected


@pytest.mark.usefixtures("mini_as_test")
def test_wrong_download_is_not_kept(elsewhere, mirror, monkeypatch):
    folder, url = mirror
    (folder / f"{MINI_FILES[0].name}.gz").write_bytes(gzip.compress(HEADER + bytes(4)))
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (url,))
    with pytest.raises(DataError, match="not the original"):
        data.load("fashion-mnist")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.usefixtures("mini_as_test")
def test_damaged_cache_is_named(elsewhere):
    elsewhere.mkdir(parents=True)
    (elsewhere / f"{MINI_FILES[0].name}.gz").write_bytes(b"\x1f\x8b damaged")
    with pytest.raises(DataError, match=r"images-idx3-ubyte\.gz: cannot be read"):
        data.load("fashion-mnist")
