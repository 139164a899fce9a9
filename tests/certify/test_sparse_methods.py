"""What every sparse training method keeps: exact counts, exact resume, loud refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from certify.sparse import METHODS, prunable
from robustbench_c.errors import UsageError
from robustbench_c.training import Progress, TrainConfig, fit
from robustbench_c.training.recipe import SparseChoice
from robustbench_c.training.sparsity import bind_sparse
from tests.certify.sparse_nets import Blobs, noisy, tiny, zeros

EPOCHS = 6
SPARSITY = 0.9
SETTINGS: dict[str, dict[str, Any]] = {
    "dynamic": {"every": 2, "regrow": "momentum"},
    "ac-dc": {"dense_until": 0.1, "phase": 0.3, "compressed_from": 0.7},
    "rewind": {"rewind_epochs": 0.5},
    "tscnc": {"gates_until": 0.6},
}
CYCLES = {"rewind": 3}


class StoppedError(Exception):
    pass


class StopAfter(Progress):
    def __init__(self, epoch: int) -> None:
        self.at = epoch

    def epoch(self, row) -> None:
        if row.epoch == self.at:
            raise StoppedError


def train(name: str, folder, *, ema: float | None = 0.5, stop: int | None = None, resume=False):
    config = TrainConfig(
        epochs=EPOCHS,
        batch_size=16,
        optimiser="adam",
        learning_rate=0.01,
        ema_decay=ema,
        eps_warmup_epochs=1,
        validation=8,
        cycles=CYCLES.get(name, 1),
    )
    settings = {"sparsity": SPARSITY, **SETTINGS.get(name, {})}
    seen: list[Any] = []

    def sparsify(model, random):
        seen.append(bind_sparse(SparseChoice(method=name, settings=settings))(model, random))
        return seen[-1]

    progress = StopAfter(stop) if stop else None
    result = fit(
        tiny(),
        Blobs(),
        noisy,
        config,
        folder=folder,
        sparsify=sparsify,
        progress=progress,
        resume=resume,
    )
    return result, seen[-1]


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustbench_c.training.loop.draw", lambda folder, rows, title: None)


@pytest.mark.parametrize("name", METHODS)
def test_resume_in_any_phase_gives_the_same_bits(tmp_path, name):
    whole, method = train(name, tmp_path / "whole")
    for stop in (1, 3, 4):  # in each phase of every method, and where one ends
        folder = tmp_path / str(stop)
        with pytest.raises(StoppedError):
            train(name, folder, stop=stop)
        resumed, later = train(name, folder, resume=True)
        for key, value in whole.model.state_dict().items():
            assert torch.equal(value, resumed.model.state_dict()[key]), (stop, key)
        for key, kept in method.masks.units.items():
            assert torch.equal(kept, later.masks.units[key]), (stop, key)
        assert method.history == later.history
        assert [r.sparsity for r in whole.rows] == [r.sparsity for r in resumed.rows]


@pytest.mark.parametrize("name", METHODS)
def test_a_finished_training_that_is_asked_for_again_gives_the_same_model(tmp_path, name):
    whole, _ = train(name, tmp_path)
    again, _ = train(name, tmp_path, resume=True)
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key]), key


@pytest.mark.parametrize("ema", [None, 0.5])
@pytest.mark.parametrize("name", METHODS)
def test_the_measured_model_has_exactly_the_asked_zeros(tmp_path, name, ema):
    result, method = train(name, tmp_path, ema=ema)
    total = sum(weight.numel() for weight in prunable(result.model).values())
    assert zeros(result.model) == total - round((1 - SPARSITY) * total)
    assert result.rows[-1].sparsity == zeros(result.model) / total
    for update in method.history:
        assert update.sparsity == pytest.approx(1 - sum(update.kept.values()) / total)


def test_rewinding_in_one_cycle_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(CYCLES, "rewind", 1)
    with pytest.raises(UsageError, match=r"set train\.cycles to 2 or more"):
        train("rewind", tmp_path)


def test_rewinding_to_after_the_first_cycle_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(SETTINGS, "rewind", {"rewind_epochs": 2})
    with pytest.raises(UsageError, match="has to be less than the 2 epochs of a cycle"):
        train("rewind", tmp_path)
