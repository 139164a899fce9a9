"""One training at a time in a folder, and what one that was killed leaves there."""

from __future__ import annotations

import json
import os
import time

import pytest

from leaderboards.holders import process
from robustbench_c import zoo
from robustbench_c.errors import RunError
from robustbench_c.training import federated
from robustbench_c.training.alone import alone_in
from robustbench_c.training.checkpoint import CHECKPOINT
from robustbench_c.training.progress import Progress
from robustbench_c.training.recipe import load_recipe, override
from robustbench_c.training.run import run

RECIPE = override(load_recipe("breast-cancer-mlp"), {"epochs": 2})
NAME = "breast-cancer-mlp.safetensors"


def test_a_second_training_in_a_folder_is_refused(tmp_path):
    with (
        alone_in(tmp_path, print),
        pytest.raises(RunError, match="another process trains in") as refused,
    ):
        run(RECIPE, tmp_path, device="cpu", overwrite=True)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_waits_for_the_dead_or_keeps_what_they_left(tmp_path):
    with alone_in(tmp_path, print):
        lease = next(tmp_path.rglob("*.lease"))
        owner = json.loads(lease.read_text()) | {"started": "1"}
        (tmp_path / f".{CHECKPOINT}.0a.tmp").write_text("half")
    lease.parent.mkdir(parents=True)
    lease.write_text(json.dumps(owner))
    with alone_in(tmp_path, print):
        assert [path.name for path in tmp_path.iterdir()] == ["leases"]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def left(tmp_path, monkeypatch):
    """Leaves a training's lease, untouched for an hour."""
    monkeypatch.setattr("robustbench_c.training.alone.AGE", 0.2)

    def leave(**owner):
        lease = tmp_path / "leases" / "training" / "folder.lease"
        lease.parent.mkdir(parents=True)
        lease.write_text(json.dumps(process(os.getpid()) | owner))
        os.utime(lease, (time.time() - 3600,) * 2)
        return lease

    return leave


@pytest.mark.parametrize("owner", [{"host": "elsewhere"}, {"boot": "an earlier one"}, {}])
def test_one_that_may_be_lost_is_waited_for_and_then_taken_over(tmp_path, left, owner):
    left(**owner)  # of another machine, before a reboot, stopped
    told = []
    with alone_in(tmp_path, told.append) as check:
        check()
    assert len(told) == 1
    assert "is in use by a training that may be lost: waiting up to 0.2 s" in told[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("owner", [{"host": "elsewhere"}, {}])
def test_one_that_shows_a_sign_of_life_is_not(tmp_path, left, owner):
    lease = left(**owner)
    with (
        pytest.raises(RunError, match="another process trains in"),
        alone_in(tmp_path, lambda _: os.utime(lease)),
    ):
        pass
    assert lease.exists()


class Overtaken(Progress):
    """Another process takes the folder over after the first epoch."""

    def __init__(self, folder):
        self.folder = folder

    def epoch(self, row):
        lease = next(self.folder.rglob("*.lease"))
        lease.write_text(json.dumps({"token": "another"}))
        (self.folder / CHECKPOINT).write_text("theirs")


@pytest.mark.parametrize("changes", [{}, {"clients": 2, "validation": 0}])
def test_one_that_was_taken_over_writes_no_more(tmp_path, changes):
    with pytest.raises(RunError, match="no longer holds") as refused:
        run(override(RECIPE, changes), tmp_path, device="cpu", progress=Overtaken(tmp_path))
    assert "\n" not in str(refused.value)
    assert (tmp_path / CHECKPOINT).read_text() == "theirs"
    assert not (tmp_path / NAME).exists()
    assert list(tmp_path.rglob("*.lease"))


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_nothing_came_of(tmp_path, there):
    folder = tmp_path / "model"
    if there:
        folder.mkdir()
    with alone_in(folder, print):
        pass
    assert folder.exists() == there


def test_stopped_between_the_card_and_the_end(tmp_path, monkeypatch):
    whole = run(RECIPE, tmp_path / "whole", device="cpu")

    save = zoo.save

    def stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(zoo, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run(RECIPE, tmp_path / "run", device="cpu")
    assert (tmp_path / "run" / CHECKPOINT).exists()
    run(RECIPE, tmp_path / "run", device="cpu", resume=True)
    assert not (tmp_path / "run" / CHECKPOINT).exists()
    assert (tmp_path / "run" / NAME).read_bytes() == whole.weights.read_bytes()


def test_federated_stopped_between_checkpoint_and_log(tmp_path, monkeypatch):
    recipe = override(RECIPE, {"clients": 2, "validation": 0})

    def stop(folder, rows):
        if len(rows) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(federated, "write_log", stop)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, tmp_path, device="cpu")
    run(recipe, tmp_path, device="cpu", resume=True)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


def test_a_folder_that_cannot_be_written(tmp_path, read_only):
    for folder in (tmp_path, tmp_path / "new"):
        with (
            pytest.raises(RunError, match="Read-only file system; give a folder") as refused,
            read_only(),
            alone_in(folder, print),
        ):
            pass
        assert "\n" not in str(refused.value)
