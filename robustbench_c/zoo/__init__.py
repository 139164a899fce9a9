"""The model zoo: architectures by name, model cards, and strict loading of weights.

Light to import: torch is imported when a model is built, loaded or saved, not before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from robustbench_c.zoo.cards import (
    Card,
    Draft,
    Measured,
    RobustMeasured,
    TrainedFor,
    TrainingCost,
    card,
    names,
)

if TYPE_CHECKING:
    from robustbench_c.zoo.cache import CacheStatistics, ModelCache
    from robustbench_c.zoo.deploying import Deployed, deploy
    from robustbench_c.zoo.loading import LoadedModel, load
    from robustbench_c.zoo.nets.registry import architectures, build
    from robustbench_c.zoo.normalized import Normalized
    from robustbench_c.zoo.saving import save

__all__ = [
    "CacheStatistics",
    "Card",
    "Deployed",
    "Draft",
    "LoadedModel",
    "Measured",
    "ModelCache",
    "Normalized",
    "RobustMeasured",
    "TrainedFor",
    "TrainingCost",
    "architectures",
    "build",
    "card",
    "deploy",
    "load",
    "names",
    "save",
]

_NEEDS_TORCH = {
    "CacheStatistics": "cache",
    "Deployed": "deploying",
    "LoadedModel": "loading",
    "ModelCache": "cache",
    "Normalized": "normalized",
    "architectures": "nets.registry",
    "build": "nets.registry",
    "deploy": "deploying",
    "load": "loading",
    "save": "saving",
}


def __getattr__(name: str) -> object:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_NEEDS_TORCH[name]}"), name)
    globals()[name] = value
    return value
