"""`robust-eval` on ONNX networks: properties, lists of instances, and ordinary data."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper

PROPERTY = """
(declare-const X_0 Real)(declare-const X_1 Real)
(declare-const Y_0 Real)(declare-const Y_1 Real)
(assert (>= X_0 -1))(assert (<= X_0 1))(assert (>= X_1 0))(assert (<= X_1 1))
(assert (<= Y_0 {bound}))
"""


def network(path, weight, shape=(1, 2)):
    """Flatten, multiply, ReLU: outputs are at least 0."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "w"], ["a"], name="matrix"),
        helper.make_node("Relu", ["a"], ["y"], name="relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, weight.shape[1]])],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def files(tmp_path):
    network(tmp_path / "net.onnx", np.eye(2))
    for name, bound in (("safe", -0.5), ("unsafe", 0.25)):
        (tmp_path / f"{name}.vnnlib").write_text(PROPERTY.format(bound=bound))
    (tmp_path / "broken.vnnlib").write_text("(assert")
    (tmp_path / "instances.csv").write_text(
        "net.onnx,safe.vnnlib,30\nnet.onnx,unsafe.vnnlib,30\nnet.onnx,broken.vnnlib,30\n"
    )
    return tmp_path


@pytest.fixture
def ask(command, files):
    return lambda *arguments: command("robust-eval", "--out", files / "runs", *arguments)


def one(files, name, *more):
    return ("--model", files / "net.onnx", "--property", files / f"{name}.vnnlib", *more)


def test_unsat(ask, files):
    ended = ask(*one(files, "safe"))
    assert ended.code == 0, ended.err
    assert ended.out.startswith("unsat by ibp, ")
    assert not list(files.glob("runs/properties/*.counterexample"))


def test_sat_with_its_counterexample(ask, files):
    ended = ask(*one(files, "unsafe", "--timeout", 20, "--json"))
    found = json.loads(ended.out)
    assert (found["verdict"], found["timeout"]) == ("sat", 20.0)
    (path,) = files.glob("runs/properties/*.counterexample")
    text = path.read_text()
    assert text == "((X_0 {!r})\n (X_1 {!r})\n (Y_0 {!r})\n (Y_1 {!r}))\n".format(
        *found["x"], *found["y"]
    )
    assert found["y"] == [max(v, 0.0) for v in found["x"]]
    assert found["y"][0] <= 0.25
    assert json.loads(path.with_suffix(".json").read_text()) == found


def test_a_record_is_not_asked_again(ask, files):
    first = ask(*one(files, "safe", "--json")).out
    assert ask(*one(files, "safe", "--json")).out == first
    assert "record that was there" in ask(*one(files, "safe")).out
    assert "record that was there" not in ask(*one(files, "safe", "--overwrite")).out
    assert "record that was there" not in ask(*one(files, "safe", "--seed", 1)).out
    (files / "safe.vnnlib").write_text(PROPERTY.format(bound=0.25))
    assert ask(*one(files, "safe")).out.startswith("sat ")


def test_a_list(ask, files):
    ended = ask("--instances", files / "instances.csv")
    assert ended.code == 0, ended.err
    assert "verdicts: 1 unsat, 1 sat, 1 error" in ended.out
    assert "broken.vnnlib" in ended.out
    assert re.fullmatch(r"properties: 3/3 done, 2 settled, peak \d+ MB", ended.lines[-1])
    (results,) = files.glob("runs/properties/*/results.json")
    rows = json.loads(results.read_text())
    assert [row["verdict"] for row in rows] == ["unsat", "sat", "error"]
    table = results.with_suffix(".csv").read_text().splitlines()
    assert table[0].startswith("network,property,verdict,reference,")
    assert table[2].startswith("net.onnx,unsafe.vnnlib,sat,,attack,")


def test_a_list_goes_on_where_it_stopped(ask, files, monkeypatch):
    from robustbench_c.foreign import answers

    real, asked = answers.verify, []

    def stopping(*arguments, **settings):
        asked.append(arguments)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **settings)

    monkeypatch.setattr(answers, "verify", stopping)
    assert ask("--instances", files / "instances.csv").code == 130
    assert ask("--instances", files / "instances.csv").code == 0
    assert len(asked) == 3  # the first once, the second twice; the third cannot be read


def test_the_reference_is_compared_and_a_contradiction_stops(ask, files):
    header = "onnx,vnnlib,reference\n"
    reference = files / "reference.csv"
    arguments = ("--instances", files / "instances.csv", "--reference", reference)
    reference.write_text(f"{header}net.onnx,safe.vnnlib,unsat\nnet.onnx,unsafe.vnnlib,timeout\n")
    ended = ask(*arguments)
    assert ended.code == 0, ended.err
    assert "reference: 1 the same, 0 contradictions" in ended.out
    reference.write_text(f"{header}net.onnx,safe.vnnlib,sat\nnet.onnx,unsafe.vnnlib,sat\n")
    ended = ask(*arguments)
    assert ended.code == 7
    assert "net.onnx safe.vnnlib: unsat, but the reference says sat" in ended.err
    assert "CONTRADICTION" in ended.out
    assert "1 contradictions" in ended.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--property", "p.vnnlib"], 2, "give a --model"),
        (["--timeout", "5"], 2, "give a --model"),
        (["--model", "m.onnx", "--instances", "i.csv"], 2, "leave out the others"),
        (["--model", "m.onnx", "--property", "p.vnnlib", "--eps", "1"], 2, "--eps does not apply"),
        (["--model", "m.onnx", "--property", "p.vnnlib", "--timeout", "0"], 2, "--timeout 0"),
        (["--model", "m.onnx", "--property", "p.vnnlib", "--reference", "r.csv"], 2, "--reference"),
        (["--model", "missing.onnx", "--property", "p.vnnlib"], 3, "missing.onnx: cannot be read"),
        (["--model", "fmnist-cnn-ibp", "--property", "p.vnnlib"], 2, "of an .onnx network"),
        (["--instances", "missing.csv"], 4, "missing.csv"),
    ],
)
def test_what_does_not_go_together(ask, arguments, code, message):
    ended = ask(*arguments)
    assert ended.code == code
    assert message in ended.err
    assert len(ended.lines) == 1


def test_a_property_that_cannot_be_read(ask, files):
    ended = ask(*one(files, "broken"))
    assert ended.code == 4
    assert len(ended.lines) == 1
    assert not (files / "runs").exists()


def test_an_onnx_network_under_attack(robust_eval, own, tmp_path):
    net = network(tmp_path / "means.onnx", np.stack([-np.ones(16), np.ones(16)], 1), (1, 1, 4, 4))
    ended = robust_eval("--model", net, "--data", own["npz"], "--eps", 0.05)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("means on own")
    flat = network(tmp_path / "flat.onnx", np.ones((16, 2)), (1, 16))
    ended = robust_eval("--model", flat, "--data", own["npz"], "--eps", 0.05)
    assert ended.code == 3
    assert "takes samples of shape (16,), but the data's have the shape (1, 4, 4)" in ended.err
