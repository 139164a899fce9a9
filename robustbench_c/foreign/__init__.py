"""Models and properties that come from elsewhere: ONNX networks and VNN-LIB properties."""

from __future__ import annotations

from robustbench_c.foreign.instances import Instance, read_instances, read_reference
from robustbench_c.foreign.onnx_model import OnnxModel, load_onnx
from robustbench_c.foreign.property import Case, Halfspace, Property
from robustbench_c.foreign.verification import Verdict, Verification, verify
from robustbench_c.foreign.vnnlib import load_vnnlib, parse_vnnlib

__all__ = [
    "Case",
    "Halfspace",
    "Instance",
    "OnnxModel",
    "Property",
    "Verdict",
    "Verification",
    "load_onnx",
    "load_vnnlib",
    "parse_vnnlib",
    "read_instances",
    "read_reference",
    "verify",
]
