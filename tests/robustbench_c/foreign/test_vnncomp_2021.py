"""The networks and properties of the competition, where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")

from onnx.reference import ReferenceEvaluator

from robustbench_c.foreign import load_onnx, load_vnnlib, read_instances, read_reference

DATA = Path(os.environ.get("VNNCOMP_2021", Path(__file__).parents[4] / "shared/data/vnncomp2021"))
pytestmark = [
    pytest.mark.vnncomp,
    pytest.mark.skipif(not DATA.exists(), reason="the VNN-COMP 2021 data are not here"),
]


@pytest.mark.parametrize(("name", "count"), [("acasxu", 40), ("mnistfc", 30)])
def test_all_are_read_and_fit(name, count):
    instances = read_instances(DATA / name / "instances.csv")
    verdicts = read_reference(DATA / name / "reference.csv")
    assert len(instances) == count
    assert {(each.onnx, each.vnnlib) for each in instances} == set(verdicts)
    for each in instances:
        net, asked = load_onnx(each.onnx), load_vnnlib(each.vnnlib)
        assert (np.prod(net.input_shape), net.classes) == (asked.inputs, asked.outputs)
        (case,) = asked.cases
        assert len(case.specification(torch.float32).clause) in (1, 4, 9)


@pytest.mark.parametrize(
    "name", ["acasxu/ACASXU_run2a_1_6_batch_2000.onnx", "mnistfc/mnist-net_256x2.onnx"]
)
def test_networks_equal_onnx(name):
    net, evaluator = load_onnx(DATA / name), ReferenceEvaluator(str(DATA / name))
    x = torch.rand(20, *net.input_shape)
    rows = [evaluator.run(None, {evaluator.input_names[-1]: row[None].numpy()})[0] for row in x]
    np.testing.assert_allclose(net(x).detach().numpy(), np.concatenate(rows), rtol=1e-5, atol=1e-6)


def test_random_points_do_not_contradict_unsat():
    for folder in (DATA / "acasxu", DATA / "mnistfc"):
        verdicts = read_reference(folder / "reference.csv")
        for each in read_instances(folder / "instances.csv")[:8]:
            net, asked = load_onnx(each.onnx), load_vnnlib(each.vnnlib)
            lower, upper = asked.cases[0].inner(np.float32)
            draw = np.random.default_rng(0).random((50, asked.inputs), dtype=np.float32)
            x = np.clip(lower + draw * (upper - lower), lower, upper)
            y = net(torch.from_numpy(x).reshape(-1, *net.input_shape)).detach().numpy()
            found = any(asked.holds(*pair) for pair in zip(x, y, strict=True))
            assert not (found and verdicts[each.onnx, each.vnnlib] == "unsat")
