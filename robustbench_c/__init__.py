"""robustbench-c: the sandwich of certified and empirical robustness, sample by sample.

`evaluate(model, x, y, threat)` is the whole of it in one call, `evaluate_explanations` the same of
explanations; `data`, `zoo` and `training` bring
data, models and recipes. Light to import: torch is imported when it is needed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# As in `attacks`, whose words these are; torch reads them once, when it is first imported.
os.environ.setdefault("MKL_CBWR", "AUTO")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from robustbench_c.evaluation import ExplainConfig, Run, evaluate, evaluate_explanations

__version__ = "0.1.0"
__all__ = ["ExplainConfig", "Run", "__version__", "evaluate", "evaluate_explanations"]


def __getattr__(name: str) -> object:
    if name in ("ExplainConfig", "Run", "evaluate", "evaluate_explanations"):
        from robustbench_c import evaluation

        return getattr(evaluation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
