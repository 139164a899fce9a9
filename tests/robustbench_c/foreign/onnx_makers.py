"""Small ONNX models for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Constants = dict[str, Any]


def make_model(
    nodes: list[onnx.NodeProto],
    shape: tuple[int | str, ...],
    constants: Constants | None = None,
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A network from `x` of `shape`, the batch in front, to `y`."""
    held = [numpy_helper.from_array(np.asarray(v), name) for name, v in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, ["any"])],
        held,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def one(op: str, *more: str, **attributes: Any) -> list[onnx.NodeProto]:
    """One node from `x` and `more` to `y`."""
    return [helper.make_node(op, ["x", *more], ["y"], name="the_node", **attributes)]


def reference(model: onnx.ModelProto) -> Callable[[np.ndarray], np.ndarray]:
    """The function of one sample, as onnx itself evaluates it; outputs flattened."""
    evaluator = ReferenceEvaluator(model)

    def run(batch: np.ndarray) -> np.ndarray:
        rows = [evaluator.run(None, {"x": sample[None]})[0].reshape(-1) for sample in batch]
        return np.stack(rows)

    return run
