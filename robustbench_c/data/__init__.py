"""Data: samples, labels, and the box of legal inputs, never normalised."""

from robustbench_c.data.attributes import Attribute
from robustbench_c.data.dataset import Dataset
from robustbench_c.data.registry import from_tensors, load, names

__all__ = ["Attribute", "Dataset", "from_tensors", "load", "names"]
