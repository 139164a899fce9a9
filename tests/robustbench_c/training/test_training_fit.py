"""The training loop: exact resume, what it refuses, what it leaves behind."""

from __future__ import annotations

import csv
import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustbench_c.errors import DataError, ModelError, RunError, UsageError
from robustbench_c.training import Augmentation, Progress, TrainConfig, fit

CONFIG = TrainConfig(
    epochs=4,
    batch_size=16,
    learning_rate=0.05,
    schedule="cosine",
    clip_norm=1.0,
    ema_decay=0.9,
    eps_warmup_epochs=2,
    augmentation=Augmentation(shift=1, flip=True),
    validation=20,
    weight_decay=1e-4,
)


class StoppedError(Exception):
    pass


class StopAfter(Progress):
    """Stops training after some epochs, or in the middle of the next one."""

    def __init__(self, epoch: int, step: int | None = None) -> None:
        self._at = (epoch, step)
        self.notes: list[str] = []

    def step(self, epoch: int, step: int, loss: float, samples_per_second: float) -> None:
        if (epoch, step) == self._at:
            raise StoppedError

    def epoch(self, row) -> None:
        if (row.epoch, None) == self._at:
            raise StoppedError

    def note(self, message: str) -> None:
        self.notes.append(message)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(one: nn.Module, other: nn.Module) -> None:
    there = other.state_dict()
    for name, value in one.state_dict().items():
        assert torch.equal(value, there[name]), name


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("stop", [StopAfter(1), StopAfter(3, step=2)])
def test_resume_gives_the_same_bits(tmp_path, blobs, make_model, noisy, optimiser, stop):
    config = CONFIG.model_copy(update={"optimiser": optimiser})
    whole = fit(make_model(), blobs, noisy, config, folder=tmp_path / "a")
    with pytest.raises(StoppedError):
        fit(make_model(), blobs, noisy, config, folder=tmp_path / "b", progress=stop)
    (tmp_path / "b" / ".checkpoint.pt.part").write_bytes(b"half a checkp")
    resumed = fit(make_model(), blobs, noisy, config, folder=tmp_path / "b", resume=True)
    assert_same(whole.model, resumed.model)
    assert [replace(r, seconds=0, samples_per_second=0) for r in whole.rows] == [
        replace(r, seconds=0, samples_per_second=0) for r in resumed.rows
    ]


def test_seed_changes_the_weights_and_the_same_seed_does_not(tmp_path, blobs, make_model, noisy):
    one = fit(make_model(), blobs, noisy, CONFIG, folder=tmp_path / "a")
    two = fit(make_model(), blobs, noisy, CONFIG, folder=tmp_path / "b")
    assert_same(one.model, two.model)
    other = CONFIG.model_copy(update={"seed": 1})
    three = fit(make_model(), blobs, noisy, other, folder=tmp_path / "c")
    assert not torch.equal(one.model[5].weight, three.model[5].weight)


def test_global_random_state_is_untouched(tmp_path, blobs, make_model, noisy):
    model = make_model()
    before = torch.get_rng_state()
    fit(model, blobs, noisy, CONFIG, folder=tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_weights_do_not_depend_on_the_global_random_state(tmp_path, blobs, make_model, noisy):
    one = fit(make_model(), blobs, noisy, CONFIG, folder=tmp_path / "a")
    torch.rand(7)
    two = fit(make_model(), blobs, noisy, CONFIG, folder=tmp_path / "b")
    assert_same(one.model, two.model)


def test_loss_falls_and_the_set_is_learnt(tmp_path, blobs, make_model, noisy):
    config = TrainConfig(epochs=12, batch_size=16, learning_rate=0.05, validation=20)
    result = fit(make_model(), blobs, noisy, config, folder=tmp_path)
    assert result.rows[-1].loss < 0.5 * result.rows[0].loss
    assert result.rows[-1].validation_accuracy == 1.0
    assert result.rows[-1].validation_robust_accuracy is None
    assert not result.model.training


def test_held_out_samples_are_never_trained_on(tmp_path, blobs, make_model):
    seen = set()

    def record(model, x, y, *, generator, scale):
        seen.update(x.flatten(1)[:, 0].tolist())
        return F.cross_entropy(model(x), y)

    config = TrainConfig(epochs=3, batch_size=16, learning_rate=0.01, validation=20)
    fit(make_model(), blobs, record, config, folder=tmp_path)
    assert len(seen) == 70  # all the others are: no sample is dropped with a last batch


def test_a_share_is_held_out(tmp_path, blobs, make_model, noisy):
    asked = []

    def attack(model, x, y):
        asked.append(len(x))
        return torch.zeros(len(x), dtype=torch.bool)

    config = TrainConfig(epochs=1, learning_rate=0.01, validation=0.1)
    fit(make_model(), blobs, noisy, config, folder=tmp_path, attack=attack)
    assert asked == [9]


def test_noise_and_order_are_new_in_each_epoch(tmp_path, blobs, make_model):
    noise, first = [], []

    def record(model, x, y, *, generator, scale):
        noise.append(float(torch.rand((), generator=generator)))
        first.append(float(x[0, 0, 0, 0]))
        return F.cross_entropy(model(x), y)

    config = TrainConfig(epochs=3, batch_size=90, learning_rate=0.01)
    fit(make_model(), blobs, record, config, folder=tmp_path)
    assert len(set(noise)) == len(set(first)) == 3


def test_robust_accuracy_counts_what_the_attack_leaves(tmp_path, blobs, make_model, noisy):
    def breaks_first_half(model, x, y):
        assert not model.training
        return torch.arange(len(x)) < len(x) // 2

    config = TrainConfig(epochs=12, batch_size=16, learning_rate=0.05, validation=20)
    result = fit(make_model(), blobs, noisy, config, folder=tmp_path, attack=breaks_first_half)
    assert result.rows[-1].validation_accuracy == 1.0
    assert result.rows[-1].validation_robust_accuracy == 0.5


def test_log_has_one_row_per_epoch_after_a_resume(tmp_path, blobs, make_model, noisy):
    with pytest.raises(StoppedError):
        fit(make_model(), blobs, noisy, CONFIG, folder=tmp_path, progress=StopAfter(2))
    with (tmp_path / "log.csv").open("a") as file:
        file.write("3,0.1,half a row that a crash left")
    result = fit(make_model(), blobs, noisy, CONFIG, folder=tmp_path, resume=True)
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[2]["loss"]) == result.rows[2].loss
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["validation_robust_accuracy"] is None
    assert rows[0]["validation_robust_accuracy"] == ""


def test_curves_are_drawn_now_and_then_and_at_the_end(
    tmp_path, blobs, make_model, noisy, drawings, monkeypatch
):
    trained(tmp_path, blobs, make_model, noisy)
    assert drawings == [1]
    monkeypatch.setattr("robustbench_c.training.loop._REDRAW_SECONDS", 0.0)
    fit(make_model(), blobs, noisy, CONFIG, folder=tmp_path)
    assert drawings == [1, 1, 2, 3, 4, 4]


def test_learning_rate_and_eps_follow_their_schedules(tmp_path, blobs, make_model):
    scales = []

    def record(model, x, y, *, generator, scale):
        scales.append(scale)
        return F.cross_entropy(model(x), y)

    config = TrainConfig(
        epochs=3, batch_size=45, learning_rate=0.1, schedule="cosine", eps_warmup_epochs=2
    )
    result = fit(make_model(), blobs, record, config, folder=tmp_path)
    assert scales == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert result.rows[-1].learning_rate == pytest.approx(0.1 * 0.0170370868)  # (1+cos(11pi/12))/2
    assert [row.eps_scale for row in result.rows] == [0.25, 0.75, 1.0]


def test_gradient_is_clipped(tmp_path, blobs):
    def steep(model, x, y, *, generator, scale):
        return 1000 * model(x).sum()

    def moved(clip: float | None, folder: Path) -> float:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        before = weights(model)
        config = TrainConfig(
            epochs=1, batch_size=90, learning_rate=0.1, schedule="constant", momentum=0,
            nesterov=False, clip_norm=clip,
        )  # fmt: skip
        fit(model, blobs, steep, config, folder=folder)
        after = model.state_dict()
        return float(sum(((after[k] - before[k]) ** 2).sum() for k in before).sqrt())

    assert moved(0.5, tmp_path / "a") == pytest.approx(0.1 * 0.5, rel=1e-4)
    assert moved(None, tmp_path / "b") > 100


def test_gradients_left_by_the_attack_are_dropped(tmp_path, blobs):
    def leaves_gradients(model, x, y, *, generator, scale):
        (100 * model(x).sum()).backward()
        return model(x).sum() * 0.0

    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    before = weights(model)
    fit(model, blobs, leaves_gradients, TrainConfig(epochs=1, learning_rate=1.0), folder=tmp_path)
    assert torch.equal(before["1.weight"], model[1].weight)


def nan_from(epoch: int, steps: int):
    calls = []

    def objective(model, x, y, *, generator, scale):
        calls.append(1)
        loss = F.cross_entropy(model(x), y)
        return loss * float("nan") if len(calls) > (epoch - 1) * steps + 1 else loss

    return objective


def test_non_finite_loss_names_epoch_and_step_and_keeps_the_checkpoint(
    tmp_path, blobs, make_model, noisy
):
    config = TrainConfig(epochs=4, batch_size=16, learning_rate=0.05)
    with pytest.raises(ModelError, match=r"the loss is nan at epoch 3, step 2 of 6: lower the"):
        fit(make_model(), blobs, nan_from(3, 6), config, folder=tmp_path)
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert len(kept["rows"]) == 2
    assert all(v.isfinite().all() for v in kept["model"].values())


def test_non_finite_weights_at_the_epochs_end_are_not_kept(tmp_path, blobs):
    def explodes(model, x, y, *, generator, scale):
        return model(x).sum() * 1e20

    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    config = TrainConfig(epochs=1, batch_size=90, learning_rate=1e30, schedule="constant")
    with pytest.raises(ModelError, match=r"'1.weight' is not finite after epoch 1"):
        fit(model, blobs, explodes, config, folder=tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def trained(tmp_path, blobs, make_model, noisy, **options):
    config = TrainConfig(epochs=1, batch_size=45, learning_rate=0.05)
    return fit(make_model(), blobs, noisy, config, folder=tmp_path, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "1" * 64}, r"data.sha256 is \"0+\" there and \"1+\" here"),
        ({"name": "other"}, r"data.name is \"blobs\" there and \"other\" here"),
    ],
)
def test_checkpoint_of_other_data_is_refused(tmp_path, blobs, make_model, noisy, change, message):
    trained(tmp_path, blobs, make_model, noisy)
    with pytest.raises(RunError, match=message):
        trained(tmp_path, replace(blobs, **change), make_model, noisy, resume=True)


def test_checkpoint_of_other_samples_with_the_same_hash_is_refused(
    tmp_path, blobs, make_model, noisy
):
    trained(tmp_path, blobs, make_model, noisy)
    subset = replace(blobs, x=blobs.x[:80], y=blobs.y[:80])
    with pytest.raises(RunError, match=r"data.samples_sha256 is"):
        trained(tmp_path, subset, make_model, noisy, resume=True)


def test_checkpoint_of_other_settings_is_refused(tmp_path, blobs, make_model, noisy):
    identity = {"objective": {"eps": 0.1}}
    trained(tmp_path, blobs, make_model, noisy, identity=identity)
    with pytest.raises(RunError, match=r"objective.eps is 0.1 there and 0.2 here"):
        trained(
            tmp_path, blobs, make_model, noisy, resume=True, identity={"objective": {"eps": 0.2}}
        )
    trained(tmp_path, blobs, make_model, noisy, resume=True, identity=identity)


def test_checkpoint_of_another_architecture_is_refused(tmp_path, blobs, make_model, noisy):
    trained(tmp_path, blobs, make_model, noisy)
    with pytest.raises(RunError, match="of another architecture"):
        trained(
            tmp_path, blobs, lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), noisy,
            resume=True,
        )  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut"])
def test_damaged_checkpoint_is_one_line(tmp_path, blobs, make_model, noisy, content):
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(RunError, match=r"checkpoint.pt is damaged: remove it"):
        trained(tmp_path, blobs, make_model, noisy, resume=True)


def test_truncated_checkpoint_is_one_line(tmp_path, blobs, make_model, noisy):
    trained(tmp_path, blobs, make_model, noisy)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RunError, match=r"checkpoint.pt is damaged: remove it"):
        trained(tmp_path, blobs, make_model, noisy, resume=True)


def test_checkpoint_that_would_run_code_is_refused(tmp_path, blobs, make_model, noisy):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"identity": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(RunError, match="damaged"):
        trained(tmp_path, blobs, make_model, noisy, resume=True)
    assert not (tmp_path / "ran").exists()


def test_full_disk_keeps_the_checkpoint_before(tmp_path, blobs, make_model, noisy, monkeypatch):
    with pytest.raises(StoppedError):
        fit(make_model(), blobs, noisy, CONFIG, folder=tmp_path, progress=StopAfter(1))
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write .*: No space left on device"):
        fit(make_model(), blobs, noisy, CONFIG, folder=tmp_path, resume=True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_folder_that_cannot_be_made_is_one_line(tmp_path, blobs, make_model, noisy):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot make the folder"):
        trained(tmp_path / "file" / "out", blobs, make_model, noisy)


def test_another_torch_is_said(tmp_path, blobs, make_model, noisy, monkeypatch):
    trained(tmp_path, blobs, make_model, noisy)
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    watcher = StopAfter(99)
    trained(tmp_path, blobs, make_model, noisy, resume=True, progress=watcher)
    assert len(watcher.notes) == 1
    assert "this is 9.9.9" in watcher.notes[0]


def test_model_that_does_not_fit_is_one_line(tmp_path, blobs, noisy):
    config = TrainConfig(epochs=1, learning_rate=0.1)
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(15, 2))
    with pytest.raises(ModelError, match=r"does not take inputs of shape \(1, 4, 4\): mat1"):
        fit(narrow, blobs, noisy, config, folder=tmp_path)
    three = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(ModelError, match=r"outputs of shape \(3,\) for data of 2 classes"):
        fit(three, blobs, noisy, config, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_holding_out_everything_is_refused(tmp_path, blobs, make_model, noisy):
    config = TrainConfig(epochs=1, learning_rate=0.1, validation=90)
    with pytest.raises(DataError, match="90 of 90 training samples are to be held out"):
        fit(make_model(), blobs, noisy, config, folder=tmp_path)


def test_augmentation_of_vectors_is_refused(tmp_path, blobs, noisy):
    flat = replace(blobs, x=blobs.x.flatten(1))
    config = TrainConfig(epochs=1, learning_rate=0.1, augmentation=Augmentation(flip=True))
    with pytest.raises(UsageError, match="augmentation needs images"):
        fit(nn.Linear(16, 2), flat, noisy, config, folder=tmp_path)


def test_batch_norm_survives_a_remainder_of_one(tmp_path, blobs, noisy):
    flat = replace(blobs, x=blobs.x.flatten(1)[:17], y=blobs.y[:17])
    model = nn.Sequential(nn.Linear(16, 2), nn.BatchNorm1d(2))
    fit(
        model, flat, noisy, TrainConfig(epochs=1, batch_size=16, learning_rate=0.1), folder=tmp_path
    )


def test_an_average_with_batch_norm_is_as_good_as_its_loss(tmp_path, blobs):
    """Its statistics are its own: those of the last step's weights would be far off."""

    def clean(model, x, y, **_):
        return F.cross_entropy(model(x), y)

    flat = replace(blobs, x=blobs.x.flatten(1))
    model = nn.Sequential(
        nn.Linear(16, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2)
    )
    config = TrainConfig(epochs=3, batch_size=16, learning_rate=1.0, ema_decay=0.99)
    found = fit(model, flat, clean, config, folder=tmp_path)
    assert found.rows[-1].train_accuracy > 0.9
    again = fit(model, flat, clean, config, folder=tmp_path, resume=True)
    for name, value in weights(found.model).items():
        assert torch.equal(value, weights(again.model)[name]), name
