"""Bad networks, properties and lists of instances."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bad_cases import ESCAPE

PROPERTY = """
(declare-const X_0 Real)(declare-const X_1 Real)
(declare-const Y_0 Real)(declare-const Y_1 Real)
(assert (>= X_0 -1))(assert (<= X_0 1))(assert (>= X_1 0))(assert (<= X_1 1))
(assert (<= Y_0 -0.5))
"""
Make = Callable[[Path], object]


def network(**changes: object) -> Make:
    """Flatten and multiply by a 2x2 matrix, with changes."""

    def make(path: Path) -> None:
        path.write_bytes(onnx_bytes(**changes))

    return make


def onnx_bytes(
    op: str = "MatMul", shape: tuple[object, ...] = (1, 2), fill: float = 1.0, opset: int = 17
) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    weight = (np.eye(2) * fill).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node(op, ["f", "w"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def cut(path: Path) -> None:
    path.write_bytes(onnx_bytes()[:60])


def damaged(path: Path) -> None:
    path.write_bytes(gzip.compress(onnx_bytes())[:-12])


def bomb(path: Path) -> None:
    """A gigabyte of spaces and more, in one megabyte."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(80):
            file.write(b" " * (1 << 24))


def text(content: str) -> Make:
    return lambda path: path.write_text(content, encoding="utf-8")


def changed(old: str, new: str) -> Make:
    assert old in PROPERTY
    return text(PROPERTY.replace(old, new))


def listed(*lines: str) -> Make:
    """An instances.csv beside a sound network and property."""

    def make(path: Path) -> None:
        path.mkdir()
        network()(path / "net.onnx")
        text(PROPERTY)(path / "p.vnnlib")
        text("\n".join(lines))(path / "instances.csv")

    return make


PROPERTY_FILES: dict[str, Make] = {
    "good.onnx": network(),
    "junk.onnx": lambda path: path.write_bytes(bytes(range(256)) * 8),
    "empty.onnx": Path.touch,
    "cut.onnx": cut,
    "folder.onnx": Path.mkdir,
    "loop.onnx": lambda path: path.symlink_to(path.name),
    "pipe.onnx": os.mkfifo,
    "zero.onnx": lambda path: path.symlink_to("/dev/zero"),
    "damaged.onnx.gz": damaged,
    "bomb.onnx.gz": bomb,
    "op.onnx": network(op="Magic"),
    "opset.onnx": network(opset=9999),
    "nan.onnx": network(fill=float("nan")),
    "shape.onnx": network(shape=("batch", "any", "any")),
    "shape-0.onnx": network(shape=(1, 0)),
    "shape-huge.onnx": network(shape=(1, 2**40)),
    "good.vnnlib": text(PROPERTY),
    "empty.vnnlib": Path.touch,
    "junk.vnnlib": lambda path: path.write_bytes(bytes(range(256))),
    "folder.vnnlib": Path.mkdir,
    "loop.vnnlib": lambda path: path.symlink_to(path.name),
    "pipe.vnnlib": os.mkfifo,
    "zero.vnnlib": lambda path: path.symlink_to("/dev/zero"),
    "cut.vnnlib": text(PROPERTY[:-5]),
    "deep.vnnlib": text("(" * 100_000),
    "escape.vnnlib": text(f"(assert ({ESCAPE.split()[0]} X_0 1))"),
    "undeclared.vnnlib": changed("Y_0 -0.5", "Y_7 -0.5"),
    "twice.vnnlib": changed("X_1 Real", "X_0 Real"),
    "gap.vnnlib": changed("X_1", "X_5"),
    "index-huge.vnnlib": changed("X_1", f"X_{10**12}"),
    "index-digits.vnnlib": changed("X_1", "X_" + "9" * 5000),
    "no-box.vnnlib": changed("(assert (<= X_0 1))", ""),
    "empty-box.vnnlib": changed("(<= X_0 1)", "(<= X_0 -7)"),
    "no-output.vnnlib": changed("(assert (<= Y_0 -0.5))", ""),
    "nan.vnnlib": changed("-0.5", "nan"),
    "huge.vnnlib": changed("-0.5", "-1e999999999"),
    "digits.vnnlib": changed("-0.5", "9" * 100_000),
    "ratio.vnnlib": changed("-0.5", "(/ 1 0)"),
    "power.vnnlib": changed("Y_0 -0.5", "(* Y_0 Y_1) 1"),
    "command.vnnlib": text(PROPERTY + "(exit)(check-sat)(set-logic ALL)(define-fun f () Real 1)"),
    "branches.vnnlib": text(PROPERTY + f"(assert (and {'(or (<= Y_0 1) (<= Y_1 1))' * 40}))"),
    "outputs.vnnlib": changed("(declare-const Y_1 Real)", ""),
    "bomb.vnnlib.gz": bomb,
    "list-good": listed("net.onnx,p.vnnlib,9"),
    "list-empty": listed(""),
    "list-none": listed("", ""),
    "list-columns": listed("net.onnx,p.vnnlib"),
    "list-timeout": listed("net.onnx,p.vnnlib,soon"),
    "list-timeout-nan": listed("net.onnx,p.vnnlib,nan"),
    "list-timeout-0": listed("net.onnx,p.vnnlib,0"),
    "list-missing": listed("net.onnx,q.vnnlib,1"),
    "list-escape": listed(f"{ESCAPE.split()[0]},p.vnnlib,1"),
    "list-nul": listed("net.onnx\0,p.vnnlib,1"),
    "list-quote": listed('"net.onnx,p.vnnlib,1'),
    "list-long": listed("x" * 5000 + ",p.vnnlib,1"),
    "list-folder": listed(".,p.vnnlib,1"),
    "reference-header.csv": text("net,verdict\na,sat\n"),
    "reference-verdict.csv": text(f"onnx,vnnlib,reference\na,b,{ESCAPE.split()[0]}\n"),
}
