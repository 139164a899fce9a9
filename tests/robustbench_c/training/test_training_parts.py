"""Schedules, the moving average, augmentation, settings: against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from robustbench_c.training.augment import augment
from robustbench_c.training.config import Augmentation, TrainConfig
from robustbench_c.training.ema import Ema
from robustbench_c.training.randomness import derive, generator
from robustbench_c.training.schedule import eps_scale, learning_rate


def config(**options) -> TrainConfig:
    return TrainConfig(**{"epochs": 10, "learning_rate": 0.2} | options)


@pytest.mark.parametrize(
    ("schedule", "step", "steps", "expected"),
    [
        ("constant", 99, 100, 0.2),
        ("cosine", 0, 1, 0.1),
        ("cosine", 1, 2, 0.2 * 0.14644660940672624),  # (1 + cos(3 pi / 4)) / 2
        ("one-cycle", 0, 5, 0.2 / 3),  # at 0.1 of the run, a third of the way up to 0.3
        ("one-cycle", 1, 5, 0.2),  # at 0.3: the peak
        ("one-cycle", 4, 5, 0.2 / 7),  # at 0.9: a seventh of the way down is left
    ],
)
def test_learning_rate(schedule, step, steps, expected):
    assert learning_rate(config(schedule=schedule), step, steps) == pytest.approx(expected)


def test_eps_scale_is_one_without_warm_up_and_never_above():
    assert eps_scale(config(), 0, 10) == 1.0
    warm = config(eps_warmup_epochs=2.5)
    assert eps_scale(warm, 0, 10) == 0.0
    assert eps_scale(warm, 5, 10) == pytest.approx(0.2)
    assert eps_scale(warm, 25, 10) == 1.0
    assert eps_scale(warm, 99, 10) == 1.0


def test_ema_against_values_by_hand():
    model = nn.Linear(1, 1, bias=False)
    model.register_buffer("count", torch.tensor(0))
    with torch.no_grad():
        model.weight.fill_(1.0)
        ema = Ema(model, decay=0.75)
        for weight, count in ((2.0, 1), (4.0, 2)):
            model.weight.fill_(weight)
            model.count.fill_(count)
            ema.update(model)
    # 0.75 * 1 + 0.25 * 2 = 1.25, then 0.75 * 1.25 + 0.25 * 4 = 1.9375
    assert ema.module.weight.item() == 1.9375
    assert ema.module.count.item() == 2
    assert model.weight.item() == 4.0


def test_batch_norm_of_the_average_has_its_own_statistics():
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1), nn.Dropout(0.5))
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 0.0], [7.0, 0.0]])
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[2.0, 0.0]]))
        ema = Ema(model, decay=0.5)
        model[0].weight.neg_()
        model(x)  # moves the statistics of the model
        model[0].weight.zero_()
        ema.update(model)  # the average is (1, 0): its outputs are 1, 3, 5, 7
    norm = ema.module[1]
    norm.momentum = 0.1
    ema.module.train()
    ema.calibrate(x.split(2))
    assert norm.running_mean.item() == 4.0
    assert norm.running_var.item() == 2.0  # the mean of the variances of {1, 3} and {5, 7}
    assert norm.momentum == 0.1
    assert all(module.training for module in ema.module.modules())
    assert model[1].running_mean.item() == pytest.approx(-0.8)


def test_shift_moves_the_image_by_whole_pixels_within_reach():
    image = torch.arange(25.0).view(1, 1, 5, 5)
    moved = augment(image.expand(400, 1, 5, 5), Augmentation(shift=2), generator(0, "t"))
    centres = {(int(v) // 5, int(v) % 5) for v in moved[:, 0, 2, 2]}
    assert centres == {(r, c) for r in range(5) for c in range(5)}
    # every row of every image is a run of neighbours, its border repeated
    steps = moved.diff(dim=3)
    assert set(steps.unique().tolist()) == {0.0, 1.0}
    assert set(moved.diff(dim=2).unique().tolist()) == {0.0, 5.0}


def test_flip_mirrors_about_half_and_each_exactly():
    image = torch.arange(6.0).view(1, 1, 2, 3)
    moved = augment(image.expand(1000, 1, 2, 3), Augmentation(flip=True), generator(0, "t"))
    same = (moved == image).flatten(1).all(1)
    mirrored = (moved == image.flip(3)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 430 < int(mirrored.sum()) < 570


def test_streams_differ_by_seed_purpose_and_epoch():
    seeds = {derive(s, p, e) for s in (0, 1) for p in ("shuffle", "attack") for e in (1, 2)}
    assert len(seeds) == 8
    assert derive(0, "shuffle", 1) == derive(0, "shuffle", 1)


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"ema_decay": 1.0},
        {"clip_norm": 0.0},
        {"batch_size": 0},
        {"eps_warmup_epochs": 11},
        {"momentum": 0.0},
        {"schedule": "exponential"},
        {"learning_rte": 0.1},
        {"validation": 2.5},
        {"augmentation": {"shift": -1}},
    ],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValidationError):
        config(**bad)
