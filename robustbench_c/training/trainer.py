"""What training moves forward: weights, masks, averages, the log; one epoch at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from certify.sparse import Dense, Position, Sparsifier, prunable
from robustbench_c.errors import ModelError, RunError, UsageError
from robustbench_c.training.augment import augment
from robustbench_c.training.checkpoint import Checkpoint
from robustbench_c.training.config import TrainConfig
from robustbench_c.training.ema import Ema
from robustbench_c.training.interfaces import (
    Attack,
    Objective,
    Replaying,
    Verifier,
)
from robustbench_c.training.log import EpochRow
from robustbench_c.training.measure import accuracy, verified_accuracy
from robustbench_c.training.progress import Progress
from robustbench_c.training.randomness import generator
from robustbench_c.training.samples import Samples
from robustbench_c.training.schedule import eps_scale, learning_rate

_MEASURED = 1000
_CALIBRATED, _BATCH = 5000, 250


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
