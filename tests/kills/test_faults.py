"""Disks that fill up or cannot be written, and shards cut short: one line, and nothing is lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from killing import Case, compare, place

from leaderboards.store import RunStore
from robustbench_c.cli.programs import run_program

EVAL = Case(
    "pgd",
    ("robust-eval", "--model", "breast-cancer-mlp", "--device", "cpu", "--batch-size", "4",
     "--samples", "28", "--eps", "0.02", "--steps", "5", "--no-diagnose", "--save-adversarial"),
    0,
)  # fmt: skip
TRAIN = Case(
    "training",
    ("robust-train", "--recipe", "breast-cancer-mlp", "--device", "cpu", "--epochs", "3"),
    0,
    workers=None,
)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of its own; returns what mounts it anew with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        again = "remount," if folder.is_mount() else ""
        words = ["mount", "-t", "tmpfs", "-o", again + options, "tmpfs", str(folder)]
        if not Path("/bin/mount").exists() or subprocess.run(words, capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module", autouse=True)
def _small_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robustbench_c.training.loop.draw", lambda *_: None)
        patch.setattr("robustbench_c.evaluation.sharing.MOST", 4)
        patch.setattr(sys, "argv", [])
        yield


def end(*words: object) -> int:
    """Run a command in this process; its exit code."""
    with pytest.raises(SystemExit) as ended:
        run_program(str(words[0]), [str(word) for word in words[1:]])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Where an undisturbed run lies."""
    out = tmp_path_factory.mktemp("whole")
    assert end(*EVAL.words, "--out", out) == 0
    return out


@pytest.fixture
def run(capsys):
    """Run a command in this process: its exit code, and what it says on stderr."""
    return lambda *words: (end(*words), capsys.readouterr().err)


def failed(ended: tuple[int, str], program: str) -> str:
    """The one line of what failed with the exit code of records."""
    code, text = ended
    errors = [line for line in text.splitlines() if line.startswith(f"{program}: error: ")]
    assert (code, len(errors), "Traceback" in text) == (6, 1, False), text
    return errors[0]


@pytest.mark.parametrize(
    "size", [60, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 8, 24, 40, 80, 100))]
)
def test_a_full_disk_and_room_again(small_disk, run, whole, size):
    disk = small_disk(f"size={size}k,nr_inodes=500" if size else "size=4k,nr_inodes=2")
    assert "No space left on device" in failed(run(*EVAL.words, "--out", disk), "robust-eval")
    assert not list(disk.rglob("*.tmp"))
    for manifest in disk.glob("*/manifest.json"):
        store = RunStore.open(manifest.parent)  # what is there is whole
        assert 0 <= store.summary().counts.not_run <= 28
    small_disk("size=50m,nr_inodes=5000")
    assert run(*EVAL.words, "--out", disk)[0] == 0
    compare(EVAL, place(EVAL, disk), place(EVAL, whole))


def test_a_full_disk_while_training(small_disk, run, tmp_path):
    assert run(*TRAIN.words, "--out", tmp_path / "whole")[0] == 0
    disk = small_disk("size=32k")
    assert "No space left" in failed(run(*TRAIN.words, "--out", disk / "model"), "robust-train")
    assert not list(disk.rglob("*.tmp"))
    small_disk("size=50m")
    assert run(*TRAIN.words, "--out", disk / "model", "--resume")[0] == 0
    compare(TRAIN, disk / "model", tmp_path / "whole")


def test_a_folder_that_cannot_be_written(small_disk, run, whole):
    disk = small_disk("size=50m")
    shutil.copytree(whole, disk, dirs_exist_ok=True)
    folder = place(EVAL, disk)
    next(folder.glob("shards/pgd/*")).unlink()
    small_disk("ro")
    for words, program in (((*EVAL.words, "--out", disk), "robust-eval"),
                           ((*EVAL.words, "--resume", folder), "robust-eval"),
                           ((*EVAL.words, "--out", disk / "new"), "robust-eval"),
                           ((*TRAIN.words, "--out", disk / "new"), "robust-train")):  # fmt: skip
        assert "Read-only file system" in failed(run(*words), program)
    assert run("robust-runs", "status", folder)[0] == 0


def test_a_shard_cut_short_is_named(run, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "runs")
    shard = sorted(place(EVAL, tmp_path / "runs").glob("shards/pgd/*"))[3]
    shard.write_bytes(shard.read_bytes()[:-100])
    line = failed(run(*EVAL.words, "--out", tmp_path / "runs"), "robust-eval")
    assert str(shard) in line
    assert "remove it, and the run's command makes it anew" in line
    shard.unlink()
    assert run(*EVAL.words, "--out", tmp_path / "runs")[0] == 0
    compare(EVAL, place(EVAL, tmp_path / "runs"), place(EVAL, whole))
