"""The run: a model, data and a threat model in; per-sample verdicts, on disk, out."""

from robustbench_c.evaluation.run import Run, evaluate

__all__ = ["Run", "evaluate"]
