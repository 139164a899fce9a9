"""Answers to properties of small networks whose truth a fine grid shows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")

from onnx import TensorProto, helper
from onnx_makers import make_model, saved

from robustbench_c.errors import DataError
from robustbench_c.foreign import load_onnx, parse_vnnlib
from robustbench_c.foreign import verification as verifying
from robustbench_c.foreign.property import Case
from robustbench_c.foreign.verification import Verdict, verify


def small_net(folder, seed=0, inputs=2, hidden=10, kind=TensorProto.FLOAT):
    rng = np.random.default_rng(seed)
    dtype = np.float32 if kind == TensorProto.FLOAT else np.float64
    sizes = [inputs, hidden, hidden, 2]
    nodes, constants, last = [], {}, "x"
    for i, (a, b) in enumerate(pairwise(sizes)):
        constants[f"w{i}"] = rng.normal(size=(a, b), scale=a**-0.5).astype(dtype)
        constants[f"b{i}"] = rng.normal(size=b, scale=0.3).astype(dtype)
        end = "y" if i == len(sizes) - 2 else f"r{i}"
        middle = end if end == "y" else f"a{i}"
        nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [middle], name=f"g{i}"))
        if end != "y":
            nodes.append(helper.make_node("Relu", [middle], [end], name=f"relu{i}"))
        last = end
    return load_onnx(saved(make_model(nodes, (1, inputs), constants, kind=kind), folder))


def asked(body, inputs=2, low=-1, high=1):
    lines = [f"(declare-const X_{i} Real)" for i in range(inputs)]
    lines += ["(declare-const Y_0 Real)", "(declare-const Y_1 Real)"]
    if low is not None:
        lines += [f"(assert (>= X_{i} {low}))(assert (<= X_{i} {high}))" for i in range(inputs)]
    return parse_vnnlib("\n".join([*lines, body]))


def least(net, inputs=2, low=-1.0, high=1.0):
    axis = torch.linspace(low, high, 201 if inputs == 2 else 41, dtype=net.dtype)
    y = net(torch.cartesian_prod(*[axis] * inputs)).detach()
    return float((y[:, 0] - y[:, 1]).min())


def difference_at_most(bound):
    """Unsafe: Y_0 - Y_1 <= bound."""
    return f"(assert (<= (- Y_0 Y_1) {bound:.12f}))"


@pytest.mark.parametrize("inputs", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_decides_what_the_grid_shows(tmp_path, seed, inputs):
    net = small_net(tmp_path, seed, inputs)
    edge = least(net, inputs)
    safe = verify(net, asked(difference_at_most(edge - 0.05), inputs))
    assert safe.verdict is Verdict.UNSAT, safe.detail
    assert safe.x is None
    unsafe = asked(difference_at_most(edge + 0.002), inputs)
    found = verify(net, unsafe)
    assert found.verdict is Verdict.SAT
    x = torch.from_numpy(found.x).float()
    assert torch.equal(x.double(), torch.from_numpy(found.x))
    assert unsafe.holds(found.x, net(x[None])[0].detach().numpy())
    assert np.array_equal(found.y, net(x[None])[0].detach().double().numpy())


def test_many_inputs_go_by_signs_of_relus(tmp_path, monkeypatch):
    monkeypatch.setattr(verifying, "FEW_INPUTS", 1)
    net = small_net(tmp_path, 1)
    edge = least(net)
    found = verify(net, asked(difference_at_most(edge - 0.01)))
    assert (found.verdict, found.method) == (Verdict.UNSAT, "complete")


def test_float64_networks(tmp_path):
    net = small_net(tmp_path, 1, kind=TensorProto.DOUBLE)
    edge = least(net)
    assert verify(net, asked(difference_at_most(edge - 0.05))).verdict is Verdict.UNSAT
    assert verify(net, asked(difference_at_most(edge + 0.002))).verdict is Verdict.SAT


def two_cases(net, first, second):
    """Y_0 - Y_1 <= its own bound at the left and at the right."""
    parts = [
        f"(and (>= X_0 {low}) (<= X_0 {high}) (>= X_1 -1) (<= X_1 1) (<= (- Y_0 Y_1) {b:.9f}))"
        for low, high, b in ((-1, -0.25, first), (0.25, 1, second))
    ]
    return asked(f"(assert (or {' '.join(parts)}))", low=None)


def halves(net):
    axis = torch.linspace(-1, 1, 201)
    x = torch.cartesian_prod(axis, axis)
    y = net(x).detach()
    d = y[:, 0] - y[:, 1]
    return float(d[x[:, 0] <= -0.25].min()), float(d[x[:, 0] >= 0.25].min())


def test_each_case_keeps_its_box(tmp_path):
    net = small_net(tmp_path, 2)
    left, right = halves(net)
    assert verify(net, two_cases(net, left - 0.05, right - 0.05)).verdict is Verdict.UNSAT
    for bounds in ((left + 0.01, right - 0.05), (left - 0.05, right + 0.01)):
        found = verify(net, two_cases(net, *bounds))
        assert found.verdict is Verdict.SAT
        assert (found.x[0] <= 0) == (bounds[0] > left)


def test_a_leak_between_cases_would_be_seen(tmp_path, monkeypatch):
    """The bound of one half, asked of both: a false counterexample, which replay refuses."""
    net = small_net(tmp_path, 3)
    left, right = halves(net)
    assert abs(left - right) > 0.2
    question = two_cases(net, left - 0.05, right - 0.05)
    assert verify(net, question).verdict is Verdict.UNSAT
    for name in ("inner", "outer"):
        real = getattr(Case, name)

        def leaky(self, dtype=np.float64, real=real):
            lower, upper = real(self, dtype)
            return lower * 0 - 1, upper * 0 + 1

        monkeypatch.setattr(Case, name, leaky)
    assert verify(net, question, subproblems=200).verdict is not Verdict.UNSAT


def test_no_tolerance_on_the_input(tmp_path, monkeypatch):
    """An attack that leaves the box by an ulp finds nothing that counts."""
    net = small_net(tmp_path, 0)
    edge = least(net)
    question = asked(difference_at_most(edge + 0.002), low=-1, high=1)
    real = verifying.descend

    def outside(*args):
        return torch.nextafter(real(*args).sign(), torch.tensor(9.0)) + 1e-6

    monkeypatch.setattr(verifying, "descend", outside)
    found = verify(net, question)
    assert found.method != "attack"
    assert np.abs(found.x).max() <= 1


def test_a_bound_that_is_not_a_number_proves_nothing(tmp_path, monkeypatch):
    net = small_net(tmp_path, 0)
    question = asked(difference_at_most(least(net) - 0.05))
    real = verifying.output_bounds
    monkeypatch.setattr(verifying, "output_bounds", lambda k, s: real(k, s) * float("nan"))
    found = verify(net, question)
    assert found.verdict is Verdict.ERROR
    assert "not a number" in found.detail


def test_an_exception_is_an_error_in_one_line(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setattr(verifying, "analyse", broken)
    net = small_net(tmp_path, 0)
    found = verify(net, asked(difference_at_most(least(net) - 0.05)))
    assert (found.verdict, found.detail) == (Verdict.ERROR, "first second")


def test_time_and_boxes_end_as_timeout(tmp_path):
    net = small_net(tmp_path, 1, hidden=20)
    question = asked(difference_at_most(least(net) - 0.005))
    assert verify(net, question, timeout=1e-9).verdict is Verdict.TIMEOUT
    found = verify(net, question, subproblems=3)
    assert (found.verdict, found.method) == (Verdict.TIMEOUT, "input-split")


def test_a_strict_boundary_is_never_settled(tmp_path):
    """Y_0 < 0 is false, Y_0 <= 0 true: a proof includes the boundary, so it cannot tell."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("Concat", ["r", "r"], ["y"], axis=1, name="twice"),
    ]
    net = load_onnx(saved(make_model(nodes, (1, 1)), tmp_path))
    strict = asked("(assert (< Y_0 0))", inputs=1)
    assert verify(net, strict, subproblems=300).verdict in (Verdict.TIMEOUT, Verdict.UNKNOWN)
    assert verify(net, asked("(assert (<= Y_0 0))", inputs=1)).verdict is Verdict.SAT


def test_misfits_are_refused(tmp_path):
    net = small_net(tmp_path, 0)
    with pytest.raises(DataError, match="3 inputs"):
        verify(net, asked("(assert (<= Y_0 0))", inputs=3))
    with pytest.raises(DataError, match="timeout"):
        verify(net, asked("(assert (<= Y_0 0))"), timeout=-1.0)
