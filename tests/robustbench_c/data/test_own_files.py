"""Data of one's own: .npz, a folder of images, .csv, and how `load` tells them from names."""

import contextlib
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from robustbench_c import data
from robustbench_c.errors import DataError, UsageError


def refusal(path, **options) -> str:
    with pytest.raises(DataError) as caught:
        data.load(str(path), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- names and paths ---------------------------------------------------------------------------


def test_unknown_name_draws_a_hint():
    assert "did you mean 'fashion-mnist'?" in refusal("fashion-minst")


def test_missing_and_foreign_files(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.npz")
    assert "no such file" in refusal("none.csv")
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    assert "not a .npz file" in refusal(tmp_path / "x.parquet")


def test_a_name_goes_before_a_folder_and_a_path_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image(tmp_path / "digits" / "a" / "0.png")
    image(tmp_path / "digits" / "b" / "0.png")
    assert len(data.load("digits")) == 450
    assert len(data.load("./digits")) == 2


def test_unknown_splits():
    assert "has no split 'train', only: test" in refusal("fashion-mnist-mini", split="train")
    assert "has no split 'all', only: train, test" in refusal("fashion-mnist", split="all")
    with pytest.raises(UsageError, match="did you mean 'train'"):
        data.load("digits", split="trian")


@pytest.mark.parametrize("option", [{"data_dir": "."}, {"label_column": "y"}, {"box": (0.0, 1.0)}])
def test_an_option_that_does_nothing_is_refused(option):
    with pytest.raises(UsageError, match="digits: "):
        data.load("digits", **option)


def test_names_all_load():
    assert "fashion-mnist" in data.names()
    for name in set(data.names()) - {"fashion-mnist", "adult"}:
        assert data.load(name).name == name


# --- .npz --------------------------------------------------------------------------------------

X = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
Y = np.array([0, 2, 1])


def npz(folder, **arrays):
    path = folder / "mine.npz"
    np.savez_compressed(path, **({"x": X, "y": Y} | arrays))
    return path


def test_npz(tmp_path):
    loaded = data.load(str(npz(tmp_path)), split="train")
    assert np.array_equal(loaded.x.numpy(), X)
    assert loaded.y.tolist() == [0, 2, 1]
    assert (float(loaded.lower), float(loaded.upper)) == (0, 1)
    assert (loaded.name, loaded.source, loaded.split) == ("mine", "mine.npz", "all")
    assert loaded.sha256 == data.from_tensors(torch.from_numpy(X), torch.from_numpy(Y)).sha256


def test_npz_box_and_classes(tmp_path):
    path = npz(
        tmp_path,
        x=X * 10,
        lower=np.float64(-1),
        upper=np.array([8, 9, 10, 11]),
        classes=np.array(["a", "b", "c", "d"]),
    )
    loaded = data.load(str(path))
    assert loaded.upper.tolist() == [8, 9, 10, 11]
    assert loaded.n_classes == 4
    assert data.load(str(path), box=(0, 20)).upper == 20
    assert "sample 2, feature (0,) is 7.27" in refusal(path, box=(0, 7))


def test_npz_uint8_is_scaled(tmp_path):
    loaded = data.load(str(npz(tmp_path, x=np.array([[0, 51], [255, 1], [2, 3]], np.uint8))))
    assert loaded.x.tolist() == torch.tensor([[0, 51], [255, 1], [2, 3]]).div(255).tolist()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X + 0.5}, "outside of its box [0, 1]"),
        ({"x": (X * 9).astype(np.int64)}, "x is int64; save it as float32"),
        ({"x": np.array(["a", "b", "c"])}, "x is <U1"),
        ({"x": np.array([None, 1, 2], dtype=object)}, "not a readable .npz"),
        ({"x": (X * 255).astype(np.uint8), "upper": np.float32(255)}, "scaled to [0, 1]"),
        ({"y": np.array([0.5, 1, 2])}, "y is float64"),
        ({"y": np.array(["cat", "dog", "cat"])}, "put names into 'classes'"),
        ({"y": Y[:2]}, "x holds 3 samples"),
        ({"classes": np.array([1, 2, 3])}, "'classes' has to be a list of strings"),
        ({"lower": np.array("0")}, "'lower' is <U1"),
        ({"lower": np.array([0, np.nan, 0, 0])}, "lower bound is not finite"),
        ({"x": np.full((3, 1), 1e300)}, "is inf, not a finite number"),
    ],
)
def test_bad_npz(tmp_path, arrays, words):
    assert words in refusal(npz(tmp_path, **arrays))


def test_npz_without_labels(tmp_path):
    np.savez(tmp_path / "half.npz", x=X, labels=Y)
    assert "holds no array 'y', only: x" in refusal(tmp_path / "half.npz")


@pytest.mark.parametrize("kept", [0, 10, 200, -30])
def test_truncated_npz(tmp_path, kept):
    path = npz(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    assert "mine.npz: not a readable .npz file" in refusal(path)


def test_damaged_npz_never_raises_anything_else(tmp_path):
    path = npz(tmp_path)
    good = path.read_bytes()
    refused = 0
    for position in range(0, len(good), 7):
        damaged = bytearray(good)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            data.load(str(path))
            continue
        refused += 1
    assert refused > len(good) // 7 // 2


def test_npz_of_plain_bytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as archive:
        archive.writestr("x", b"not numpy")
        archive.writestr("y", b"not numpy")
    assert "'x' is not a numpy array" in refusal(tmp_path / "odd.npz")


def test_zip_bomb(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"")
        archive.filelist[0].file_size = 4 << 30
    assert "refused, it unpacks to 4096 MiB" in refusal(path)


def test_npz_with_an_absurd_header(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000, 4), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    with zipfile.ZipFile(tmp_path / "big.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header)
    assert "big.npz: cannot be unpacked" in refusal(tmp_path / "big.npz")


# --- folder of images --------------------------------------------------------------------------


def image(path, mode="L", size=(3, 2), value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def test_grey_folder(tmp_path):
    image(tmp_path / "dog" / "b.png", value=51)
    image(tmp_path / "cat" / "z.bmp", value=255)
    image(tmp_path / "dog" / "a.png", value=0)
    (tmp_path / "dog" / ".hidden").write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.txt").write_text("x")
    loaded = data.load(str(tmp_path))
    assert loaded.classes == ("cat", "dog")
    assert loaded.shape == (1, 2, 3)
    assert loaded.y.tolist() == [0, 1, 1]
    assert loaded.x[:, 0, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.2])
    assert loaded.name == tmp_path.name


def test_rgb_folder_puts_channels_first(tmp_path):
    image(tmp_path / "a" / "0.png", "RGB", value=(255, 0, 51))
    image(tmp_path / "b" / "0.jpg", "RGB", value=(0, 0, 0))
    loaded = data.load(str(tmp_path))
    assert loaded.shape == (3, 2, 3)
    assert loaded.x[0, :, 1, 1].tolist() == pytest.approx([1.0, 0.0, 0.2])


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"size": (4, 2)}, "b/0.png: grey, 4x2, but"),
        ({"mode": "RGB"}, "b/0.png: RGB, 3x2, but"),
        ({"mode": "RGBA"}, "has mode RGBA"),
        ({"mode": "P"}, "has mode P"),
        ({"mode": "I;16"}, "has mode I;16"),
    ],
)
def test_odd_one_out_is_named(tmp_path, second, words):
    image(tmp_path / "a" / "0.png")
    image(tmp_path / "b" / "0.png", **second)
    assert words in refusal(tmp_path)


def test_bad_folders(tmp_path):
    assert "holds no subfolders" in refusal(tmp_path)
    (tmp_path / "a").mkdir()
    assert "holds no images" in refusal(tmp_path)
    (tmp_path / "a" / "notes.gif").write_bytes(b"GIF89a")
    assert "notes.gif: not a .png" in refusal(tmp_path)
    (tmp_path / "a" / "notes.gif").rename(tmp_path / "a" / "notes.png")
    assert "notes.png: not a readable image" in refusal(tmp_path)
    image(tmp_path / "loose.png")
    assert "loose.png: an image outside" in refusal(tmp_path)


def test_truncated_image(tmp_path):
    image(tmp_path / "a" / "0.png", size=(64, 64))
    path = tmp_path / "a" / "0.png"
    good = path.read_bytes()
    for kept in range(0, len(good) - 20, 5):
        path.write_bytes(good[:kept])
        assert "0.png: not a readable image" in refusal(tmp_path)


# --- .csv --------------------------------------------------------------------------------------


def csv(folder, text):
    path = folder / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_csv(tmp_path):
    loaded = data.load(str(csv(tmp_path, "height, Label, width\n1,dog,-2\n3.5,cat,0.1\n\n")))
    assert loaded.classes == ("cat", "dog")
    assert loaded.y.tolist() == [1, 0]
    assert loaded.feature_names == ("height", "width")
    assert torch.equal(loaded.x, torch.tensor([[1.0, -2.0], [3.5, 0.1]]))
    assert torch.equal(loaded.lower, torch.tensor([1.0, -2.0]))
    assert torch.equal(loaded.upper, torch.tensor([3.5, 0.1]))
    assert (loaded.name, loaded.split) == ("table", "all")


def test_csv_box_and_label_column(tmp_path):
    path = csv(tmp_path, "a,y,kind\n0.5,0.25,0\n1,0,1\n")
    loaded = data.load(str(path), label_column="kind", box=(0, 1))
    assert loaded.feature_names == ("a", "y")
    assert loaded.upper.shape == ()
    assert "feature 'a' is 1, outside of its box [0, 0.5]" in refusal(
        path, label_column="kind", box=(0, 0.5)
    )


@pytest.mark.parametrize(
    ("labels", "y", "classes"),
    [
        ("012", [0, 1, 2], ("0", "1", "2")),
        ("020", [0, 2, 0], ("0", "1", "2")),
        (["1.0", "3", "0"], [1, 3, 0], ("0", "1", "2", "3")),
        (["1", "-1", "10"], [1, 0, 2], ("-1", "1", "10")),
        (["True", "False", "True"], [1, 0, 1], ("False", "True")),
        (["2", "b", "10"], [1, 2, 0], ("10", "2", "b")),
    ],
)
def test_csv_labels(tmp_path, labels, y, classes):
    text = "a,label\n" + "".join(f"{row},{label}\n" for row, label in enumerate(labels))
    loaded = data.load(str(csv(tmp_path, text)))
    assert loaded.y.tolist() == y
    assert loaded.classes == classes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column () can be the label"),
        ("a,label\n", "holds no samples"),
        ("label\n1\n", "holds no feature columns"),
        ("a,b\n1,2\n", "no column (a, b) can be the label; name it with --label-column"),
        ("a,y,label\n1,2,0\n", "'y' and 'label' can both be the label"),
        (",a,label\n0,1,0\n", "column 1 has no name"),
        ("a,b,a,label\n0,1,0,0\n", "two columns are called 'a'"),
        ("a,label\n1,0\n\nred,1\n", "line 4, column 'a' is 'red', not a number"),
        ("a,label\n1,0\n,1\n", "line 3, column 'a' is missing"),
        ("a,b,label\n1,0,0\n1,NA,1\n", "line 3, column 'b' is missing"),
        ("a,label,b\n1,0,0\n1,1,-inf\n", "line 3, column 'b' is -inf, not a finite number"),
        ("a,label\n1,0\n2,\n", "line 3, column 'label' is missing"),
        ("a,label\n1,0\n2,0.5\n", "line 3, column 'label' is '0.5'; a label is"),
        ("a,label\n1,0\n2,inf\n", "line 3, column 'label' is 'inf'; a label is"),
        ("a,label\n1,0\n2,1,3\n", "line 3 has 3 fields, not 2"),
        ("a,label\n1,0\n2\n", "line 3 has 1 fields, not 2"),
        ("a,label\n1,x\n2,x\n", "1 class name(s)"),
        ("a,label\n1e300,0\n1,1\n", "upper bound is not finite"),
        ('a,label\n"1,0\n', "not a readable CSV file"),
        (b"a,label\n\xff\xfe,0\n", "not a readable CSV file"),
        (b"\x00\x01\x02", "table.csv: "),
    ],
)
def test_bad_csv(tmp_path, text, words):
    assert words in refusal(csv(tmp_path, text))


def test_csv_wrong_label_column(tmp_path):
    path = csv(tmp_path, "a,b\n1,2\n")
    assert "has no column 'c', only: a, b" in refusal(path, label_column="c")
