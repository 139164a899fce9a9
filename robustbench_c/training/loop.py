"""The training loop: any model, any objective, exact resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from certify.sparse import Dense
from robustbench_c.errors import RunError, UsageError
from robustbench_c.training.checkpoint import load_checkpoint, save_checkpoint
from robustbench_c.training.config import TrainConfig
from robustbench_c.training.interfaces import (
    Attack,
    Objective,
    Sparsify,
    TrainingData,
    Verifier,
)
from robustbench_c.training.log import EpochRow, write_log
from robustbench_c.training.measure import check_fits
from robustbench_c.training.plot import draw
from robustbench_c.training.progress import Progress
from robustbench_c.training.randomness import derive, generator, seeded_modules
from robustbench_c.training.samples import Samples, describe, hold_out, place
from robustbench_c.training.trainer import Trainer

_REDRAW_SECONDS = 30.0


@dataclass(frozen=True)
class FitResult:
    """What training gave.

    Attributes:
        model: The trained model in evaluation mode: the moving average where one is kept, else
            the model that was given; a copy of it where the sparse method prunes no other.
        rows: One per epoch.
    """

    model: nn.Module
    rows: tuple[EpochRow, ...]


def fit(
    model: nn.Module,
    data: TrainingData,
    objective: Objective,
    config: TrainConfig,
    *,
    folder: Path,
    resume: bool = False,
    device: torch.device | str = "cpu",
    validation: TrainingData | None = None,
    attack: Attack | None = None,
    verifier: Verifier | None = None,
    sparsify: Sparsify | None = None,
    identity: Mapping[str, Any] | None = None,
    title: str = "Training",
    progress: Progress | None = None,
    check: Callable[[], None] = lambda: None,
) -> FitResult:
    """Train `model` in place, with a checkpoint and a log row after each epoch, and curves.

    On the CPU, the same call on the same machine with the same number of threads gives the same
    weights bit for bit, however often it was interrupted and resumed. The global random state is
    left as it was.

    Args:
        model: Takes (n, *shape) float32, gives logits (n, classes).
        data: The training split, never the test split.
        objective: Loss of a batch, its settings bound.
        config: All numbers of the training.
        folder: Gets `checkpoint.pt`, `log.csv`, `log.jsonl`, `training.png` and `training.svg`, and
            `churn.jsonl` with every change of the masks where it is sparse.
        resume: Go on from the folder's checkpoint; start anew where there is none.
        device: Where to train; the data are held there whole.
        validation: Samples to measure on; without it, `config.validation` are held out of `data`.
        attack: Measures robust accuracy on the held-out samples after each epoch.
        verifier: Measures verified accuracy on them, likewise.
        sparsify: Makes the method that keeps the model sparse; without it the model is dense.
        identity: What else the weights depend on, as JSON values (the architecture, the
            objective's name and settings): a checkpoint of another identity is refused.
        title: Names the training in the plot.
        progress: Is told of each step.
        check: Called before each checkpoint; raises where this process may not write any more.

    Returns:
        The trained model and the log.

    Raises:
        ModelError: Model and data do not fit, or the loss or a weight is not finite.
        DataError: No samples are left to train on.
        RunError: The folder cannot be written, or its checkpoint is damaged or of another training.
        UsageError: Augmentation is asked for, but the samples are no images; the sparse method
            does not fit the training; or the best epoch is to be kept, but nothing is measured.
    """
    device = torch.device(device)
    progress = progress or Progress()
    train, held = hold_out(place(data, device), 0 if validation else config.validation, config.seed)
    if validation:
        held = place(validation, device)
    if config.augmentation and train.x.dim() != 4:
        raise UsageError(f"augmentation needs images: '{data.name}' has none; leave it out")
    check_fits(model.to(device), train.x, len(data.classes))
    sparsifier = sparsify(model, partial(generator, config.seed)) if sparsify else Dense(model)
    if config.keep == "best-robust":
        _check_can_choose(held, attack, sparsify)
    trainer = Trainer(model, train, held, objective, config, attack, verifier, sparsifier, progress)
    whole: dict[str, Any] = {
        "config": config.content(),
        "data": describe(data),
        "validation": describe(validation) if validation else None,
        **(identity or {}),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder {folder}: {error.strerror}") from error
    checkpoint = load_checkpoint(folder, whole, device) if resume else None
    if checkpoint:
        trainer.restore(checkpoint, folder)
        write_log(folder, trainer.rows, trainer.sparsifier.history)
    drawn = time.perf_counter()
    progress.start(config.epochs, trainer.steps, len(trainer.rows))
    for epoch in range(len(trainer.rows) + 1, config.epochs + 1):
        with seeded_modules(derive(config.seed, "modules", epoch), device):
            row = trainer.epoch(epoch)
        check()
        save_checkpoint(folder, trainer.checkpoint(whole))
        write_log(folder, trainer.rows, trainer.sparsifier.history)
        if time.perf_counter() - drawn > _REDRAW_SECONDS:
            draw(folder, trainer.rows, title)
            drawn = time.perf_counter()
        progress.epoch(row)
    draw(folder, trainer.rows, title)
    return FitResult(trainer.chosen().eval(), tuple(trainer.rows))


def _check_can_choose(held: Samples, attack: Attack | None, sparsify: Sparsify | None) -> None:
    if not len(held) or attack is None:
        raise UsageError(
            'keep = "best-robust" needs held-out samples (validation) and an objective with a norm '
            "and an eps"
        )
    if sparsify is not None:
        raise UsageError(
            'keep = "best-robust" is for dense models: an early epoch of a sparse training may '
            "have too many weights"
        )
