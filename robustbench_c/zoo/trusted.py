"""Models that run code of others when loaded: only after the user has said so."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustbench_c.errors import ModelError
from robustbench_c.zoo.files import precheck
from robustbench_c.zoo.oneline import one_line
from robustbench_c.zoo.states import check_finite


@dataclass(frozen=True)
class Foreign:
    """A module made by code of others.

    Attributes:
        module: What the code returned.
        architecture: What to call it.
        identity: Stands for the code in the model's hash; does not depend on where it lies.
    """

    module: nn.Module
    architecture: str
    identity: str


def demand_trust(name: str, trust_checkpoint: bool) -> None:
    """Raise ModelError unless the user has trusted the code that this name runs."""
    if not trust_checkpoint:
        raise ModelError(
            f"{one_line(name)} runs code when loaded; "
            "if you trust its source, give --trust-checkpoint"
        )


def from_factory(spec: str, arguments: Mapping[str, object]) -> Foreign:
    """Call `package.module:factory` or `path/file.py:factory`.

    The hash covers the file that holds the factory, not what that file imports.

    Raises:
        ModelError: Not found, the code raises, or it returns no nn.Module.
    """
    where, _, attribute = spec.rpartition(":")
    label = one_line(spec)
    try:
        code = _from_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
        factory: Callable[..., object] = getattr(code, attribute)
        module = factory(**arguments)
        if not isinstance(module, nn.Module):
            raise ModelError(f"{label} returned a {type(module).__name__}, not a torch.nn.Module")
        source = hashlib.sha256(Path(inspect.getfile(code)).read_bytes()).hexdigest()
    except ModelError:
        raise
    # The code of others can raise anything, SystemExit included.
    except (Exception, SystemExit) as error:
        raise ModelError(f"{label} failed: {type(error).__name__}: {one_line(error)}") from error
    identity = f"{attribute}({sorted(arguments.items())!r}) of code {source}"
    return Foreign(module, one_line(f"{Path(where).name}:{attribute}"), identity)


def _from_file(path: Path) -> ModuleType:
    """Import a file under a name of its own, so that it shadows no other module."""
    precheck(path)
    unique = f"_robustbench_c_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(unique, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"cannot import {path}")
    code = importlib.util.module_from_spec(spec)
    sys.modules[unique] = code  # dataclasses and pickle look their module up
    spec.loader.exec_module(code)
    return code


def from_pickle(module: nn.Module) -> Foreign:
    """Describe a module that a trusted pickle held; its hash covers its printed structure."""
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    return Foreign(module, kind, f"{kind} {module!r}")


def from_program(path: Path) -> Foreign:
    """Load a program written by `torch.export.save`; its hash covers its graph.

    Raises:
        ModelError: Not such a file, more than one input, or a batch size fixed at export.
    """
    precheck(path)
    try:
        program = torch.export.load(path)
    # A damaged archive can raise anything at all.
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error, 120)}"
        raise ModelError(f"{path} is not an exported program, or is corrupt: {reason}") from error
    inputs = program.graph_signature.user_inputs
    if len(inputs) != 1:
        raise ModelError(f"{path} takes {len(inputs)} inputs; a classifier takes one batch")
    node = next(node for node in program.graph.nodes if node.name == inputs[0])
    if isinstance(node.meta["val"].shape[0], int):
        raise ModelError(
            f"{path} was exported for batches of {node.meta['val'].shape[0]} only: export it "
            "again with a dynamic batch, dynamic_shapes=({0: torch.export.Dim('batch')},)"
        )
    graph = hashlib.sha256(str(program.graph).encode()).hexdigest()
    return Foreign(Exported(program.module()), "torch.export", f"torch.export {graph}")


class Exported(nn.Module):
    """An exported program as an ordinary module: it has one mode, and moves between devices."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program
        for part in self.modules():
            part.training = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch."""
        logits: Tensor = self.program(x)
        return logits

    def train(self, mode: bool = True) -> Exported:
        """Do nothing: the mode was fixed at export, and torch raises where it is set."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Exported:
        """Move the state, and the devices that the export wrote into the graph."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch has no types here
        state = next(chain(self.parameters(), self.buffers()), None)
        if state is None:
            return self
        for part in self.modules():
            if isinstance(part, torch.fx.GraphModule):
                for node in part.graph.nodes:
                    if "device" in node.kwargs:
                        node.kwargs = {**node.kwargs, "device": state.device}
                part.recompile()
        return self


def adopt(foreign: Foreign, label: str, notices: list[str]) -> nn.Module:
    """Return the module in float32, its weights checked.

    Raises:
        ModelError: A NaN or Inf among the weights, or complex weights.
    """
    module = foreign.module
    for key, tensor in chain(module.named_parameters(), module.named_buffers()):
        if is_lazy(tensor) or tensor.is_meta:
            raise ModelError(f"{label}: {key} has no values yet; run the model once before")
    wrong = {p.dtype for p in module.parameters()} - {torch.float32}
    if any(dtype.is_complex for dtype in wrong):
        raise ModelError(f"{label}: complex weights; float32 is needed")
    if wrong:
        module = module.float()
        notices.append(f"converted weights from {', '.join(map(str, wrong))} to float32")
    for key, parameter in module.named_parameters():
        check_finite(key, parameter.detach(), label)
    for key, buffer in module.named_buffers():
        if bool(buffer.isnan().any()):  # Inf is legal here: attention masks hold it
            raise ModelError(f"{label}: the buffer {key} holds NaN")
    return module
