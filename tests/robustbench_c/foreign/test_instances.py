"""Lists of instances and of verdicts."""

from __future__ import annotations

import pytest

from robustbench_c.errors import DataError
from robustbench_c.foreign import Instance, read_instances, read_reference


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nets").mkdir()
    for name in ("nets/a.onnx", "p.vnnlib", "q.vnnlib.gz"):
        (tmp_path / name).touch()
    return tmp_path


def table(folder, text):
    path = folder / "table.csv"
    path.write_text(text)
    return path


def test_instances(folder):
    path = table(folder, "nets/a.onnx,p.vnnlib,116\n\n./nets/a.onnx, q.vnnlib ,0.5\r\n")
    net = folder / "nets/a.onnx"
    assert read_instances(path) == (
        Instance(net, folder / "p.vnnlib", 116.0),
        Instance(net, folder / "q.vnnlib.gz", 0.5),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("nets/a.onnx,p.vnnlib\n", "line 1: 2 columns"),
        ("nets/a.onnx,p.vnnlib,116\nnets/b.onnx,p.vnnlib,116", "line 2: there is no file"),
        ("nets/a.onnx,,116", "line 1: '' is not the name"),
        ("nets,p.vnnlib,116", "there is no file"),
        *((f"nets/a.onnx,p.vnnlib,{bad}", "timeout") for bad in ("soon", "0", "-1", "nan", "inf")),
        ('nets/a.onnx,"p', "not a CSV file"),
    ],
)
def test_refused(folder, text, reason):
    path = table(folder, text)
    with pytest.raises(DataError) as caught:
        read_instances(path)
    assert str(caught.value).startswith(str(path))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_text_and_no_file(folder):
    path = folder / "bad.csv"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not a CSV file"):
        read_instances(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_instances(folder / "none.csv")


def test_reference_has_the_keys_of_instances(folder):
    (instance, _) = read_instances(table(folder, "nets/a.onnx,p.vnnlib,1\nnets/a.onnx,q.vnnlib,1"))
    path = table(
        folder, "onnx,vnnlib,timeout_s,reference\nnets/a.onnx,p.vnnlib,1,unsat\n"
        "nets/a.onnx,q.vnnlib,1,sat\n"
    )  # fmt: skip
    verdicts = read_reference(path)
    assert verdicts[instance.onnx, instance.vnnlib] == "unsat"
    assert len(verdicts) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("onnx,vnnlib\n", "no column 'reference'"),
        ("onnx,vnnlib,reference\nnets/a.onnx,p.vnnlib,holds\n", "'holds' is no verdict"),
        ("onnx,vnnlib,reference\nnets/a.onnx,p.vnnlib\n", "2 columns"),
        (
            "onnx,vnnlib,reference\nnets/a.onnx,p.vnnlib,sat\nnets/a.onnx,p.vnnlib,unsat\n",
            "line 3: a second",
        ),
    ],
)
def test_reference_refused(folder, text, reason):
    with pytest.raises(DataError, match=reason):
        read_reference(table(folder, text))
