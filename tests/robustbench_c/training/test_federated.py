"""Federated training: every sample has one client, and one client is plain training."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustbench_c.errors import DataError, UsageError
from robustbench_c.training import Federation, Progress, TrainConfig, fit, fit_federated
from robustbench_c.training.federated import average, split
from robustbench_c.training.log import EpochRow
from robustbench_c.training.objectives import bind, short_attack
from robustbench_c.training.recipe import load_recipe, override
from robustbench_c.training.run import run

SGD = TrainConfig(
    epochs=4, batch_size=16, learning_rate=0.05, momentum=0, nesterov=False, schedule="cosine",
    eps_warmup_epochs=2, validation=0.2,
)  # fmt: skip
BOX = torch.tensor(0.0), torch.tensor(1.0)
LINF = {"norm": "linf", "eps": 0.1}


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    monkeypatch.setattr("robustbench_c.training.federated.draw", lambda *_: None)


@pytest.mark.parametrize("clients", [1, 2, 7, 45])
@pytest.mark.parametrize("alpha", [1e-3, 0.5, 100.0])
def test_every_sample_has_one_client_and_every_client_two_samples(clients, alpha):
    y = torch.randint(3, (90,), generator=torch.Generator().manual_seed(0))
    parts = split(y, clients, alpha, 0)
    assert len(parts) == clients
    assert torch.cat(parts).sort().values.tolist() == list(range(90))
    assert min(map(len, parts)) >= 2
    again, other = split(y, clients, alpha, 0), split(y, clients, alpha, 1)
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))
    if clients > 1:
        assert any(not torch.equal(a, b) for a, b in zip(parts, other, strict=True))


def test_a_small_alpha_gives_clients_few_classes():
    y = torch.arange(2000) % 10

    def largest(alpha):
        """Mean over clients of the share of the most frequent class."""
        counts = [y[part].bincount(minlength=10) for part in split(y, 5, alpha, 0)]
        return sum(float(count.max() / count.sum()) for count in counts) / 5

    assert largest(1000.0) < 0.13
    assert largest(0.05) > 0.3


def test_too_many_clients_are_refused():
    with pytest.raises(DataError, match="7 samples are too few for 4 clients"):
        split(torch.zeros(7, dtype=torch.int64), 4, 1.0, 0)


def test_average_counts_samples():
    states = [
        {"w": torch.tensor([1.0, 4.0]), "seen": torch.tensor(3)},
        {"w": torch.tensor([5.0, 0.0]), "seen": torch.tensor(9)},
    ]
    found = average(states, [3, 1])
    assert found["w"].tolist() == [2.0, 3.0]
    assert found["seen"].item() == 3
    alone = {"w": torch.rand(50)}
    assert torch.equal(average([alone], [17])["w"], alone["w"])


@pytest.mark.parametrize("local_epochs", [1, 2, 4])
def test_one_client_is_plain_training_bit_for_bit(tmp_path, blobs, make_model, noisy, local_epochs):
    plain, alone = make_model(), make_model()
    whole = fit(plain, blobs, noisy, SGD, folder=tmp_path / "a")
    one = Federation(clients=1, local_epochs=local_epochs)
    found = fit_federated(alone, blobs, noisy, SGD, one, folder=tmp_path / "b")
    for name, value in plain.state_dict().items():
        assert torch.equal(value, alone.state_dict()[name]), name
    assert found.model is alone
    assert not alone.training
    assert [row.epoch for row in found.rows] == list(range(local_epochs, 5, local_epochs))
    assert found.rows[-1].validation_accuracy == whole.rows[-1].validation_accuracy
    if local_epochs == 1:
        for mine, theirs in zip(found.rows, whole.rows, strict=True):
            assert mine.loss == pytest.approx(theirs.loss, rel=1e-9)


def test_a_round_is_the_mean_of_what_clients_train_to(tmp_path, blobs):
    def linear():
        torch.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))

    def plain(model, x, y, *, generator, scale):
        return F.cross_entropy(model(x), y)

    step = {"epochs": 1, "batch_size": 90, "validation": 0, "schedule": "constant"}
    config = SGD.model_copy(update=step | {"eps_warmup_epochs": 0})
    shared = linear()
    fit_federated(shared, blobs, plain, config, Federation(clients=3, alpha=0.5), folder=tmp_path)
    # one whole-batch step of each client: the mean is one step on all samples
    model = linear()
    F.cross_entropy(model(blobs.x), blobs.y).backward()
    for weight, found in zip(model.parameters(), shared.parameters(), strict=True):
        torch.testing.assert_close(found, weight.detach() - 0.05 * weight.grad)


def test_clients_learn_together_and_each_is_reported(tmp_path, blobs, make_model):
    objective = bind("pgd", LINF | {"steps": 2, "step_size": 0.06}, *BOX)
    attack = short_attack(LINF, *BOX, 0)
    config = SGD.model_copy(update={"epochs": 6, "momentum": 0.9, "learning_rate": 0.1})
    three = Federation(clients=3, alpha=0.3, local_epochs=2)
    result = fit_federated(
        make_model(), blobs, objective, config, three, folder=tmp_path, attack=attack
    )
    assert len(result.rows) == 3
    assert result.rows[-1].validation_robust_accuracy > 0.7
    report = json.loads((tmp_path / "clients.json").read_text())
    assert [row["client"] for row in report] == [0, 1, 2]
    assert sum(row["samples"] + row["held_out"] for row in report) == 90
    assert [sum(labels) for labels in zip(*(row["labels"] for row in report), strict=True)] == [
        45, 45,
    ]  # fmt: skip
    held = sum(row["held_out"] for row in report)
    for key, last in (
        ("accuracy", result.rows[-1].validation_accuracy),
        ("robust_accuracy", result.rows[-1].validation_robust_accuracy),
    ):
        known = [row for row in report if row["held_out"]]
        right = sum(row[key] * row["held_out"] for row in known)
        assert right / held == pytest.approx(last)


class StoppedError(Exception):
    pass


class StopIn(Progress):
    def step(self, epoch, step, loss, samples_per_second):
        if (epoch, step) == (3, 5):
            raise StoppedError


def test_resume_gives_the_same_bits(tmp_path, blobs, make_model, noisy):
    config = SGD.model_copy(update={"optimiser": "adam", "learning_rate": 0.01})
    two = Federation(clients=2)

    def train(folder, **options):
        return fit_federated(make_model(), blobs, noisy, config, two, folder=folder, **options)

    whole = train(tmp_path / "a")
    with pytest.raises(StoppedError):
        train(tmp_path / "b", progress=StopIn())
    resumed = train(tmp_path / "b", resume=True)
    assert [row.epoch for row in resumed.rows] == [1, 2, 3, 4]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_no_time_is_in_the_count_of_samples():
    """Nor, so, in the mean loss of the clients."""
    row = EpochRow(1, 0.5, 0.5, None, None, None, 0.1, 1.0, 0.0, 0.0)
    times = [0.001 * n / 7 for n in range(1, 1000)]
    rows = [replace(row, seconds=s, samples_per_second=49 / s) for s in times]
    assert len({row.seconds * row.samples_per_second for row in rows}) > 1
    assert {row.samples for row in rows} == {49}


@pytest.mark.parametrize(
    ("change", "local", "message"),
    [
        ({"ema_decay": 0.9}, 1, "train.ema_decay is 0.9: federated"),
        ({"keep": "best-robust"}, 1, "train.keep is 'best-robust': federated"),
        ({}, 3, r"epochs \(4\) is no multiple of local_epochs \(3\)"),
    ],
)
def test_what_has_no_meaning_is_refused(tmp_path, blobs, make_model, noisy, change, local, message):
    config, two = SGD.model_copy(update=change), Federation(clients=2, local_epochs=local)
    with pytest.raises(UsageError, match=message):
        fit_federated(make_model(), blobs, noisy, config, two, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_recipe_trains_over_clients(tmp_path):
    path = tmp_path / "shared.toml"
    path.write_text(
        'name = "shared"\ndata = "breast-cancer"\nnormalise = "data"\n'
        "federated = { clients = 3, alpha = 0.5 }\n"
        '[architecture]\nname = "mlp"\narguments = { widths = [8] }\n'
        '[objective]\nname = "pgd"\n'
        'settings = { norm = "linf", eps = 0.01, steps = 1, step_size = 0.01 }\n'
        "[train]\nepochs = 2\nlearning_rate = 0.1\nvalidation = 0.2\n"
    )
    recipe = load_recipe(str(path))
    trained = run(recipe, tmp_path / "out", device="cpu")
    assert trained.clean_accuracy > 0.7
    assert len(json.loads((tmp_path / "out" / "clients.json").read_text())) == 3
    assert (tmp_path / "out" / "shared.json").exists()
    assert not (tmp_path / "out" / "checkpoint.pt").exists()
    plain = path.read_text().replace("federated = { clients = 3, alpha = 0.5 }\n", "")
    path.write_text(plain)
    assert load_recipe(str(path)).sha256 != recipe.sha256
    path.write_text(plain + '[sparse]\nmethod = "static"\n[federated]\nclients = 2\n')
    with pytest.raises(UsageError, match="federated training is of dense models"):
        load_recipe(str(path))
    assert override(recipe, {"epochs": 4}).federated == recipe.federated
