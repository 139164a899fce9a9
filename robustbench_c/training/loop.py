"""The training loop: any model, any objective, exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from certify.sparse import Dense, Position, Sparsifier, prunable
from robustbench_c.errors import ModelError, RunError, UsageError
from robustbench_c.training.augment import augment
from robustbench_c.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from robustbench_c.training.config import TrainConfig
from robustbench_c.training.ema import Ema
from robustbench_c.training.interfaces import (
    Attack,
    Objective,
    Replaying,
    Sparsify,
    TrainingData,
    Verifier,
)
from robustbench_c.training.log import EpochRow, write_log
from robustbench_c.training.measure import accuracy, check_fits, verified_accuracy
from robustbench_c.training.plot import draw
from robustbench_c.training.progress import Progress
from robustbench_c.training.randomness import derive, generator, seeded_modules
from robustbench_c.training.samples import Samples, describe, hold_out, place
from robustbench_c.training.schedule import eps_scale, learning_rate

_MEASURED = 1000
_CALIBRATED, _BATCH = 5000, 250
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


def best_robust(rows: Sequence[EpochRow]) -> int:
    """The first of the epochs with the highest accuracy under attack on the held-out samples."""
    best = max(rows, key=lambda row: row.validation_robust_accuracy or 0.0)
    return best.epoch


class Trainer:
    """The state that training moves forward, one epoch at a time."""

    def __init__(
        self,
        model: nn.Module,
        train: Samples,
        held: Samples,
        objective: Objective,
        config: TrainConfig,
        attack: Attack | None,
        verifier: Verifier | None,
        sparsifier: Dense,
        progress: Progress,
    ) -> None:
        self.model, self.train, self.held = model, train, held
        self.objective, self.config = objective, config
        self.attack, self.verifier, self.progress = attack, verifier, progress
        self.sparsifier = sparsifier
        self.device = train.x.device
        self.replays = objective.replays if isinstance(objective, Replaying) else 1
        self.steps = math.ceil(len(train) / config.batch_size) * self.replays
        self.cycle = config.epochs // config.cycles * self.steps
        self.optimiser = _optimiser(model, config)
        self.ema = _average(model, config)
        self.measured = model
        self.rows: list[EpochRow] = []
        self.best: dict[str, Any] | None = None

    def settle(self) -> nn.Module:
        """Set `measured`, and return it: what would be used if training ended here."""
        if self.ema:
            some = self.train.x[:_CALIBRATED]
            self.ema.calibrate(some.tensor_split(math.ceil(len(some) / _BATCH)))
        trained = self.ema.module if self.ema else self.model
        self.measured = self.sparsifier.settle(trained, self._part().x)
        return self.measured

    def chosen(self) -> nn.Module:
        """What is returned: `measured`, as it was after the epoch that is kept."""
        measured = self.settle()
        if self.best is not None:
            measured.load_state_dict(self.best)
        return measured

    def _batches(self, epoch: int) -> Iterator[Samples]:
        """The batch of each step of an epoch; one that replays batches gets each several times."""
        order = torch.randperm(len(self.train), generator=self._generator("shuffle", epoch))
        changes = self._generator("augmentation", epoch, self.device)
        for index in order.to(self.device).tensor_split(self.steps // self.replays):
            batch = self.train.at(index)
            if self.config.augmentation:
                batch = Samples(augment(batch.x, self.config.augmentation, changes), batch.y)
            yield from repeat(batch, self.replays)

    def epoch(self, epoch: int) -> EpochRow:
        """Train one epoch, counted from 1, and measure."""
        noise = self._generator("attack", epoch, self.device)
        if isinstance(self.objective, Replaying):
            self.objective.begin()
        total, seen, started = 0.0, 0, time.perf_counter()
        for step, batch in enumerate(self._batches(epoch)):
            position = (epoch - 1) * self.steps + step
            in_cycle = position % self.cycle
            rate = learning_rate(self.config, in_cycle, self.cycle)
            scale = eps_scale(self.config, in_cycle, self.steps)
            steps = self.config.epochs * self.steps
            self._prepare(Position(position, steps, self.steps, self.config.cycles))
            loss = self._step(batch, rate, scale, noise)
            if not math.isfinite(loss):
                raise ModelError(
                    f"the loss is {loss} at epoch {epoch}, step {step + 1} of {self.steps}: "
                    "lower the learning rate or clip the gradient"
                )
            total, seen = total + loss * len(batch), seen + len(batch)
            seconds = time.perf_counter() - started
            self.progress.step(epoch, step + 1, total / seen, seen / seconds)
        self.settle()
        self._check_weights(epoch)
        clean, robust, verified = self._validate()
        row = EpochRow(
            epoch=epoch,
            loss=total / seen,
            train_accuracy=self._train_accuracy(),
            validation_accuracy=clean,
            validation_robust_accuracy=robust,
            validation_verified_accuracy=verified,
            learning_rate=rate,
            eps_scale=scale,
            seconds=seconds,
            samples_per_second=seen / seconds,
            sparsity=self._sparsity(),
        )
        self.rows.append(row)
        if self.config.keep == "best-robust" and best_robust(self.rows) == epoch:
            state = self.measured.state_dict()
            self.best = {name: value.clone() for name, value in state.items()}
        return row

    def _prepare(self, at: Position) -> None:
        """Let the masks change, where it is time to."""
        try:
            anew = self.sparsifier.begin(at, self.optimiser)
        except ValueError as error:
            raise UsageError(f"the sparse method: {error}") from error
        if anew:
            self.optimiser = _optimiser(self.model, self.config)
            self.ema = _average(self.model, self.config)

    def _step(self, batch: Samples, rate: float, scale: float, noise: torch.Generator) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.model.train()

        def loss() -> Tensor:
            return self.objective(self.model, batch.x, batch.y, generator=noise, scale=scale)

        value = self.sparsifier.gradient(loss)
        if math.isfinite(value):
            if self.config.clip_norm:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
            self.optimiser.step()
            self.sparsifier.stepped()
            if self.ema:
                self.ema.update(self.model)
        return value

    def _check_weights(self, epoch: int) -> None:
        for name, value in self.measured.state_dict().items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise ModelError(
                    f"'{name}' is not finite after epoch {epoch}: "
                    "lower the learning rate or clip the gradient"
                )

    def _part(self) -> Samples:
        """The training samples that something is measured on, always the same."""
        return self.train.at(torch.arange(min(len(self.train), _MEASURED), device=self.device))

    def _train_accuracy(self) -> float:
        part = self._part()
        return accuracy(self.measured, part.x, part.y)

    def _validate(self) -> tuple[float | None, float | None, float | None]:
        """Accuracy on the held-out samples: clean, under attack, verified."""
        if not len(self.held):
            return None, None, None
        model, x, y = self.measured, self.held.x, self.held.y
        return (
            accuracy(model, x, y),
            accuracy(model, x, y, self.attack) if self.attack else None,
            verified_accuracy(model, x, y, self.verifier) if self.verifier else None,
        )

    def _sparsity(self) -> float | None:
        """Share of zeros among the prunable weights, counted; None for a dense training."""
        if not isinstance(self.sparsifier, Sparsifier):
            return None
        weights = prunable(self.measured).values()
        zeros = sum(int((weight == 0).sum()) for weight in weights)
        return zeros / sum(weight.numel() for weight in weights)

    def _generator(
        self, purpose: str, epoch: int, device: torch.device | str = "cpu"
    ) -> torch.Generator:
        return generator(self.config.seed, purpose, epoch, device)

    def checkpoint(self, identity: dict[str, Any]) -> Checkpoint:
        """What a resume needs."""
        return Checkpoint(
            identity=identity,
            model=self.model.state_dict(),
            ema=self.ema.module.state_dict() if self.ema else None,
            optimiser=self.optimiser.state_dict(),
            sparsifier=self.sparsifier.state(),
            rows=self.rows,
            torch_version=str(torch.__version__),
            best=self.best,
        )

    def restore(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Go on from a checkpoint."""
        try:
            self.model.load_state_dict(checkpoint.model)
            if self.ema and checkpoint.ema is not None:
                self.ema.module.load_state_dict(checkpoint.ema)
            self.optimiser.load_state_dict(checkpoint.optimiser)
            self.sparsifier.restore(checkpoint.sparsifier)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"the checkpoint in {folder} is of another architecture: give another folder"
            ) from error
        self.rows, self.best = list(checkpoint.rows), checkpoint.best
        if checkpoint.torch_version != torch.__version__:
            self.progress.note(
                f"the checkpoint was written by torch {checkpoint.torch_version}, this is "
                f"{torch.__version__}: the weights may differ in bits from an uninterrupted run"
            )


def _average(model: nn.Module, config: TrainConfig) -> Ema | None:
    return Ema(model, config.ema_decay) if config.ema_decay else None


def _optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    match config.optimiser:
        case "sgd":
            return torch.optim.SGD(
                model.parameters(),
                lr=rate,
                momentum=config.momentum,
                nesterov=config.nesterov,
                weight_decay=decay,
            )
        case "adam":
            return torch.optim.Adam(model.parameters(), lr=rate, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
