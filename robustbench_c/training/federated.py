"""Federated training over simulated clients: FedAvg on a split by label that is not even.

Clients hold parts of one data set, train on their own part from the common weights, and their
weights are averaged by their numbers of samples (McMahan et al., AISTATS 2017, algorithm 1). With
an adversarial objective this is federated adversarial training (Zizzo et al., 2020). Nothing is
sent anywhere, and nothing is private: clients take turns in one process.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certify.sparse import Dense
from robustbench_c.errors import DataError, RunError, UsageError
from robustbench_c.files import write_atomically
from robustbench_c.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from robustbench_c.training.config import Federation, TrainConfig
from robustbench_c.training.interfaces import Attack, Objective, TrainingData
from robustbench_c.training.log import EpochRow, write_log
from robustbench_c.training.loop import FitResult
from robustbench_c.training.measure import accuracy, check_fits
from robustbench_c.training.plot import draw
from robustbench_c.training.progress import Progress
from robustbench_c.training.randomness import derive, generator, seeded_modules
from robustbench_c.training.samples import Samples, describe, hold_out, place
from robustbench_c.training.trainer import Trainer

CLIENTS = "clients.json"
_MEASURED = 1000


@dataclass(frozen=True)
class ClientRow:
    """What the common model does for one client; accuracies are on its held-out samples.

    Attributes:
        client: From 0.
        samples: That it trains on.
        held_out: That it is measured on.
        labels: Samples of each class, both kinds.
        accuracy: Clean accuracy; None where nothing is held out.
        robust_accuracy: Accuracy under the short attack; None without one.
    """

    client: int
    samples: int
    held_out: int
    labels: tuple[int, ...]
    accuracy: float | None
    robust_accuracy: float | None


def split(y: Tensor, clients: int, alpha: float, seed: int) -> list[Tensor]:
    """Share samples out, each class by its own draw from a Dirichlet distribution.

    The usual split by label (Hsu et al., 2019): a small `alpha` gives each class to few clients, a
    large one gives every client the same share of all. Then clients that have fewer samples than
    two get some of the largest client's, or they could not train.

    Args:
        y: int64, (n,).
        clients: How many, >= 1.
        alpha: Concentration, > 0.
        seed: Of the draws.

    Returns:
        The places of each client's samples, in rising order; every sample once.

    Raises:
        DataError: There are fewer samples than two for each client.
    """
    if len(y) < 2 * clients:
        raise DataError(f"{len(y)} samples are too few for {clients} clients: give fewer clients")
    draws = generator(seed, "clients")
    dirichlet = np.random.default_rng(derive(seed, "shares of clients"))
    parts: list[list[Tensor]] = [[] for _ in range(clients)]
    for label in range(int(y.max()) + 1):
        places = (y == label).nonzero()[:, 0].cpu()
        places = places[torch.randperm(len(places), generator=draws)]
        shares = dirichlet.dirichlet(np.full(clients, alpha))
        ends = [round(end) for end in (shares.cumsum() * len(places)).tolist()]
        ends[-1] = len(places)
        for part, begin, end in zip(parts, [0, *ends[:-1]], ends, strict=True):
            part.append(places[begin:end])
    held = [torch.cat(part) for part in parts]
    for poor, places in enumerate(held):
        for _ in range(2 - len(places)):
            rich = max(range(clients), key=lambda client: len(held[client]))
            held[poor] = torch.cat([held[poor], held[rich][-1:]])
            held[rich] = held[rich][:-1]
    return [places.sort().values for places in held]


def average(states: Sequence[Mapping[str, Tensor]], weights: Sequence[int]) -> dict[str, Tensor]:
    """The weighted mean of state dicts, in float64; whole numbers are the first client's."""
    total = sum(weights)
    found = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            each = [s[name].double() * (n / total) for s, n in zip(states, weights, strict=True)]
            found[name] = torch.stack(each).sum(0).to(first.dtype)
        else:
            found[name] = first.clone()
    return found


def fit_federated(
    model: nn.Module,
    data: TrainingData,
    objective: Objective,
    config: TrainConfig,
    federation: Federation,
    *,
    folder: Path,
    resume: bool = False,
    device: torch.device | str = "cpu",
    attack: Attack | None = None,
    identity: Mapping[str, Any] | None = None,
    title: str = "Training",
    progress: Progress | None = None,
    check: Callable[[], None] = lambda: None,
) -> FitResult:
    """Train `model` in place over simulated clients, `federation.local_epochs` in each round.

    Every client trains as `fit` does, on its own samples, with an optimiser of its own that is new
    in each round; learning rate and eps follow their schedules over all epochs. The log has one row
    for each round, under the number of its last epoch. One client without momentum is `fit`.

    Args:
        model: As for `fit`, like the arguments that are not named here.
        data: What is split among the clients.
        objective: Loss of a batch, its settings bound.
        config: All numbers of the training; `validation` is held out of each client's samples.
        federation: Clients, split and rounds.
        folder: Gets what `fit` writes, and `clients.json`, a report for each client.
        resume: Go on from the folder's checkpoint, which is written after each round.
        device: Where to train.
        attack: Measures robust accuracy on the held-out samples.
        identity: What else the weights depend on.
        title: Names the training in the plot.
        progress: Is told of each client's steps.
        check: As for `fit`.

    Raises:
        HarnessError: As `fit`; also a moving average, or an epoch to be chosen, which have no
            meaning here, epochs that are no whole number of rounds, and more clients than samples.
    """
    device, progress = torch.device(device), progress or Progress()
    _check_settings(config, federation)
    whole = place(data, device)
    check_fits(model.to(device), whole.x, len(data.classes))
    if config.augmentation and whole.x.dim() != 4:
        raise UsageError(f"augmentation needs images: '{data.name}' has none; leave it out")
    parts = split(whole.y, federation.clients, federation.alpha, config.seed)
    clients = [_Client.of(n, whole.at(part.to(device)), config) for n, part in enumerate(parts)]
    about: dict[str, Any] = {
        "config": config.content(),
        "federation": federation.model_dump(mode="json"),
        "clients": [len(part) for part in parts],
        "data": describe(data),
        **(identity or {}),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder {folder}: {error.strerror}") from error
    rows = _restored(model, folder, about, device) if resume else []
    if rows:
        write_log(folder, rows)
    local = federation.local_epochs
    steps = sum(client.steps for client in clients) * local
    progress.start(config.epochs, steps, rows[-1].epoch if rows else 0)
    for first in range(len(rows) * local + 1, config.epochs + 1, local):
        epochs = range(first, first + local)
        found = _train_round(model, clients, objective, epochs, _Turns(progress))
        rows.append(_measure_round(model, clients, found, attack))
        check()
        save_checkpoint(folder, _state(about, model, rows))
        write_log(folder, rows)
        progress.epoch(rows[-1])
    report = [_report(model, client, len(data.classes), attack) for client in clients]
    text = json.dumps([asdict(row) for row in report], indent=1) + "\n"
    write_atomically(folder / CLIENTS, text.encode())
    draw(folder, rows, title)
    return FitResult(model.eval(), tuple(rows))


@dataclass(frozen=True)
class _Client:
    """One client: its settings (a seed of its own), and the samples that it trains on or not."""

    number: int
    config: TrainConfig
    train: Samples
    held: Samples

    @classmethod
    def of(cls, number: int, samples: Samples, config: TrainConfig) -> _Client:
        """The first client has the training's own seed, so that one client is plain training."""
        seed = derive(config.seed, "client", number) if number else config.seed
        own = config.model_copy(update={"seed": seed})
        return cls(number, own, *hold_out(samples, config.validation, seed))

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return math.ceil(len(self.train) / self.config.batch_size)


class _Turns(Progress):
    """Counts the steps of all clients in a round as one."""

    def __init__(self, watcher: Progress) -> None:
        self._watcher, self._count = watcher, 0

    def step(self, epoch: int, step: int, loss: float, samples_per_second: float) -> None:
        self._count += 1
        self._watcher.step(epoch, self._count, loss, samples_per_second)


def _check_settings(config: TrainConfig, federation: Federation) -> None:
    if config.keep != "last":
        raise UsageError(
            f"train.keep is '{config.keep}': federated training keeps the last round; leave it out "
            "(--keep last)"
        )
    if config.ema_decay is not None:
        raise UsageError(
            f"train.ema_decay is {config.ema_decay:g}: federated training averages over clients "
            "alone; leave it out"
        )
    if config.epochs % federation.local_epochs:
        raise UsageError(
            f"epochs ({config.epochs}) is no multiple of local_epochs ({federation.local_epochs})"
        )


def _train_round(
    model: nn.Module,
    clients: Sequence[_Client],
    objective: Objective,
    epochs: range,
    progress: Progress,
) -> list[EpochRow]:
    """Train each client from the model's weights, and leave their mean in the model."""
    common = copied(model)
    states, rows = [], []
    for client in clients:
        model.load_state_dict(common)
        trainer = Trainer(
            model, client.train, client.held, objective, client.config, None, None, Dense(model),
            progress,
        )  # fmt: skip
        for epoch in epochs:
            with seeded_modules(derive(client.config.seed, "modules", epoch), trainer.device):
                rows.append(trainer.epoch(epoch))
        states.append(copied(model))
    model.load_state_dict(average(states, [len(client.train) for client in clients]))
    return rows


def copied(model: nn.Module) -> dict[str, Tensor]:
    """The model's state, in tensors of its own."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def _measure_round(
    model: nn.Module,
    clients: Sequence[_Client],
    found: Sequence[EpochRow],
    attack: Attack | None,
) -> EpochRow:
    """The round's row of the log: the clients' training together, and the common model."""
    seen = [row.samples for row in found]
    seconds = sum(row.seconds for row in found)
    few = math.ceil(_MEASURED / len(clients))
    x = torch.cat([client.train.x[:few] for client in clients])
    y = torch.cat([client.train.y[:few] for client in clients])
    held_x = torch.cat([client.held.x for client in clients])
    held_y = torch.cat([client.held.y for client in clients])
    return replace(
        found[-1],
        loss=sum(n * row.loss for n, row in zip(seen, found, strict=True)) / sum(seen),
        train_accuracy=accuracy(model, x, y),
        validation_accuracy=accuracy(model, held_x, held_y) if len(held_y) else None,
        validation_robust_accuracy=(
            accuracy(model, held_x, held_y, attack) if len(held_y) and attack else None
        ),
        seconds=seconds,
        samples_per_second=sum(seen) / seconds,
    )


def _report(model: nn.Module, client: _Client, classes: int, attack: Attack | None) -> ClientRow:
    x, y = client.held.x, client.held.y
    labels = torch.cat([client.train.y, y]).bincount(minlength=classes).tolist()
    return ClientRow(
        client=client.number,
        samples=len(client.train),
        held_out=len(y),
        labels=tuple(labels),
        accuracy=accuracy(model, x, y) if len(y) else None,
        robust_accuracy=accuracy(model, x, y, attack) if len(y) and attack else None,
    )


def _state(about: dict[str, Any], model: nn.Module, rows: list[EpochRow]) -> Checkpoint:
    """What a resume needs: clients keep nothing from one round to the next."""
    return Checkpoint(about, model.state_dict(), None, {}, {}, rows, str(torch.__version__))


def _restored(
    model: nn.Module, folder: Path, about: dict[str, Any], device: torch.device
) -> list[EpochRow]:
    checkpoint = load_checkpoint(folder, about, device)
    if checkpoint is None:
        return []
    try:
        model.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        raise RunError(
            f"the checkpoint in {folder} is of another architecture: give another folder"
        ) from error
    return list(checkpoint.rows)
