"""The one place that knows auto_LiRPA: an optional second opinion on our bounds.

PyPI's auto_LiRPA 0.3 (2022) asks for torch < 1.13 and is installed beside a current torch with
`make lirpa` (`scripts/install_lirpa.sh`). Four mends let it work there. Each is made on the first
`load()`, never on import of this file, and only where it is needed:

1. `numpy.lib.arraysetops`, from which it imports `isin`, is gone since numpy 2.0.
2. `torch.onnx.symbolic_helper._set_opset_version`, with which it chooses the ONNX operators it
   reads a graph in, is gone since torch 2.0: the setting it changed is set directly.
3. `torch._C.Node` lost `node[name]`, with which it reads the attributes of a graph's nodes.
4. `BoundedModule._named_members` lacks the argument `remove_duplicate` that torch 2.0 passes to
   it whenever somebody asks for the module's parameters.

`numpy.bool`, gone in numpy 1.24 to 1.26, needs no mend: only word substitutions, which we do not
use, read it (tried: IBP, CROWN-IBP and CROWN give the same bounds without it).

Its bounds are not rounded outwards: at eps = 0 they may miss the true value by some float32 ulps.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import logging
import sys
import warnings
from functools import cache
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

Method = Literal["IBP", "CROWN-IBP", "CROWN"]


def load() -> ModuleType | None:
    """Return auto_LiRPA, mended, or None if it is absent or does not work here."""
    return _load()[0]


def notice() -> str | None:
    """Return one line that says why `load()` gives None; None if it gives the module."""
    return _load()[1]


def bounds(
    model: nn.Module,
    lower: Tensor,
    upper: Tensor,
    method: Method,
    coefficients: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Bound a model's outputs, or linear functions of them, over a box of inputs.

    Args:
        model: Evaluated as in `eval()` mode, on a copy.
        lower: Lower ends of the inputs, (N, ...).
        upper: Upper ends, of the same shape.
        method: auto_LiRPA's name of the method.
        coefficients: For each sample the functions to bound, (N, rows, K), such as those of
            `certify.specification.margins`; None for the outputs themselves.

    Returns:
        Lower and upper bounds, (N, rows) or (N, K) each, without gradient.

    Raises:
        RuntimeError: auto_LiRPA is not there (`notice()` says why), or a bound is not a number.
    """
    lirpa = load()
    if lirpa is None:
        raise RuntimeError(notice())
    # In eval mode dropout does nothing, but auto_LiRPA traces it in training mode and fails.
    plain = _without_dropout(copy.deepcopy(model)).eval()
    with warnings.catch_warnings(record=True), torch.no_grad():
        bounded = lirpa.BoundedModule(plain, torch.zeros_like(lower), device=lower.device)
        ball = lirpa.PerturbationLpNorm(norm=float("inf"), x_L=lower, x_U=upper)
        inputs = lirpa.BoundedTensor((lower + upper) / 2, ball)
        low, high = bounded.compute_bounds(x=(inputs,), C=coefficients, method=method)
    if low.isnan().any() or high.isnan().any():
        raise RuntimeError(f"auto_LiRPA's {method} bounds hold NaN")
    return low.detach(), high.detach()


@cache
def _load() -> tuple[ModuleType | None, str | None]:
    if importlib.util.find_spec("auto_LiRPA") is None:
        return None, "auto_LiRPA is absent: no second opinion on bounds; `make lirpa` installs it"
    handlers = logging.root.handlers[:]
    try:
        with warnings.catch_warnings(record=True):  # it changes the filters, and warns
            _mend_numpy()
            _mend_opset()
            _mend_nodes()
            lirpa = importlib.import_module("auto_LiRPA")
            _mend_named_members(lirpa.BoundedModule)
    except (ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())
        return None, (
            f"auto_LiRPA does not work beside torch {torch.__version__} ({reason}): "
            "no second opinion on bounds; `make lirpa` installs the version known to work"
        )
    finally:
        logging.root.handlers[:] = handlers  # it sends everybody's log to the standard output
    return lirpa, None


def _mend_numpy() -> None:
    name = "numpy.lib.arraysetops"
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        stub = ModuleType(name)
        stub.isin = np.isin  # type: ignore[attr-defined]  # a module of our own making
        sys.modules[name] = stub


def _mend_opset() -> None:
    helper: Any = importlib.import_module("torch.onnx.symbolic_helper")
    if hasattr(helper, "_set_opset_version"):
        return
    try:
        where: Any = importlib.import_module("torch.onnx._internal.torchscript_exporter._globals")
    except ModuleNotFoundError:  # where older versions keep it
        where = importlib.import_module("torch.onnx._globals")

    def set_opset_version(version: int) -> None:
        where.GLOBALS._export_onnx_opset_version = version

    helper._set_opset_version = set_opset_version


def _mend_nodes() -> None:
    node: Any = torch._C.Node
    if not hasattr(node, "__getitem__"):
        node.__getitem__ = lambda self, key: getattr(self, self.kindOf(key))(key)


def _mend_named_members(bounded_module: Any) -> None:
    members = bounded_module._named_members
    if "remove_duplicate" in inspect.signature(members).parameters:
        return

    def named_members(
        self: Any, get: Any, prefix: str = "", recurse: bool = True, **_: bool
    ) -> Any:
        return members(self, get, prefix, recurse)

    bounded_module._named_members = named_members


def _without_dropout(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return nn.Identity()
    for name, child in module.named_children():
        setattr(module, name, _without_dropout(child))
    return module
