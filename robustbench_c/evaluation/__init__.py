"""The run: a model, data and a threat model in; per-sample verdicts, on disk, out."""

from robustbench_c.evaluation.explained_config import ExplainConfig
from robustbench_c.evaluation.explained_run import evaluate_explanations
from robustbench_c.evaluation.run import Run, evaluate

__all__ = ["ExplainConfig", "Run", "evaluate", "evaluate_explanations"]
