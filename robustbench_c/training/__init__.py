"""Training: any model, any objective, checkpoints with exact resume, and recipes as files."""

from robustbench_c.training.config import Augmentation, Federation, TrainConfig
from robustbench_c.training.federated import ClientRow, fit_federated
from robustbench_c.training.interfaces import Attack, Objective, TrainingData
from robustbench_c.training.log import EpochRow
from robustbench_c.training.loop import FitResult, fit
from robustbench_c.training.progress import Progress

__all__ = [
    "Attack",
    "Augmentation",
    "ClientRow",
    "EpochRow",
    "Federation",
    "FitResult",
    "Objective",
    "Progress",
    "TrainConfig",
    "TrainingData",
    "fit",
    "fit_federated",
]
