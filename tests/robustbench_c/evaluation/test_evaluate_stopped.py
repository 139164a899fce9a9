"""Whatever stops a run, what is on disk is whole, and the same call finishes it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attacks.pgd import PGDConfig
from attacks.threat import ThreatModel
from leaderboards.errors import RecordError
from leaderboards.holders import process
from leaderboards.listing import list_runs
from leaderboards.store import RunStore
from leaderboards.summary import summarise
from robustbench_c import evaluate, zoo
from robustbench_c.data import from_tensors, load
from robustbench_c.evaluation import artefacts
from robustbench_c.evaluation.verify import verify

HERE = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("small_shards")


@pytest.fixture
def finished(linear, tmp_path, hashes):
    run = linear.evaluate(tmp_path / "finished", save_adversarial=True)
    return run, hashes(run)


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize("shards", [1, 3])
def test_stopped_by_an_exception(linear, tmp_path, finished, hashes, shards):
    class StopError(Exception):
        pass

    def stop(step, done, total, broken):
        if done > 7 * shards:
            raise StopError

    with pytest.raises(StopError):
        linear.evaluate(tmp_path, progress=stop, save_adversarial=True)
    (listed,) = list_runs(tmp_path / finished[0].folder.name / "..")
    assert not listed.summary.complete
    assert listed.summary.robust_accuracy is None
    assert listed.summary.counts.not_run == 55 - 7 * shards
    calls = []
    run = linear.evaluate(tmp_path, save_adversarial=True, progress=lambda *c: calls.append(c))
    assert run.resumed
    assert calls[0][1] == 7 * shards
    assert calls[0][3] == listed.summary.counts.broken
    assert hashes(run) == finished[1]


def test_gone_on_with_in_another_way(linear, tmp_path, finished, hashes, monkeypatch):
    """Another batch size, other shards and another order may finish what one began."""

    def stop(step, done, total, broken):
        if done > 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        linear.evaluate(tmp_path, progress=stop, save_adversarial=True)
    monkeypatch.setattr("robustbench_c.evaluation.sharing.MOST", 1000)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    data = from_tensors(linear.x, linear.y).subset(order)
    run = evaluate(
        linear.model,
        data,
        threat=linear.threat(),
        attack=PGDConfig(steps=10, restarts=2, loss="margin", goal="multi-targeted"),
        device="cpu",
        out=tmp_path,
        batch_size=1,
        save_adversarial=True,
        diagnose=False,
    )
    assert run.resumed
    assert hashes(run) == finished[1]
    assert verify(run.store, linear.model, data).problems == ()


def test_another_number_of_threads_is_another_run(linear, tmp_path):
    """It rounds differently, and nothing of the two may be mixed."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        first = linear.evaluate(tmp_path)
        torch.set_num_threads(1)
        second = linear.evaluate(tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert first.folder != second.folder
    assert (first.store.manifest.threads, second.store.manifest.threads) == (3, 1)


def each_sync(monkeypatch, fail_at: int, error: BaseException) -> list[int]:
    """Let the n-th `fsync` from now on fail, once."""
    real, calls = os.fsync, [0]

    def fsync(handle: int) -> None:
        calls[0] += 1
        if calls[0] == fail_at:
            raise error
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return calls


@pytest.mark.parametrize(
    ("error", "raised", "words", "every"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), RecordError, "No space left", 1),
        (KeyboardInterrupt(), KeyboardInterrupt, "", 3),
    ],
    ids=["disk full", "Ctrl-C"],
)
def test_stopped_at_every_write(
    linear, tmp_path, finished, hashes, monkeypatch, error, raised, words, every
):
    monkeypatch.setattr("robustbench_c.evaluation.sharing.MOST", 30)
    for number in range(1, 200, every):
        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            calls = each_sync(patch, number, error)
            stopped = None
            try:
                linear.evaluate(out, save_adversarial=True)
            except raised as caught:
                stopped = caught
        if stopped is None:
            assert calls[0] < number  # nothing failed: every write has had its turn
            assert number > 15
            break
        assert words in str(stopped)
        assert "\n" not in str(stopped)
        assert leftovers(out) == []
        folder = out / finished[0].folder.name
        if (folder / "manifest.json").exists():
            summarise(RunStore.open(folder))  # every file that is there is whole
        run = linear.evaluate(out, save_adversarial=True)
        assert hashes(run) == finished[1]
        assert run.store.verify_bytes() == []
        stored = torch.cat([e.ids for e in artefacts.read(run.store, "pgd")])
        assert len(stored) == len(stored.unique()) == run.summary.counts.broken
    else:
        pytest.fail("writes without end")


KILLED = """
import os, signal, stat, sys
sys.path.insert(0, sys.argv[3])
from robustbench_c import data, evaluate, zoo
from robustbench_c.evaluation import attacking, sharing
from attacks.pgd import PGDConfig
from attacks.threat import ThreatModel

sharing.MOST = 7
attacking.contact_sheet = lambda *_: None
real, calls, at = os.fsync, 0, int(sys.argv[2])

def fsync(handle):
    global calls
    calls += stat.S_ISREG(os.fstat(handle).st_mode)
    if calls == at:
        os.kill(os.getpid(), signal.SIGKILL)
    real(handle)

os.fsync = fsync
samples = data.load("fashion-mnist-mini").head(40)
evaluate(
    zoo.load("fmnist-cnn-standard"), samples,
    threat=ThreatModel("linf", 0.02, samples.lower, samples.upper),
    attack=PGDConfig(steps=4, restarts=1), out=sys.argv[1], device="cpu", save_adversarial=True,
    diagnose=False,
)
"""


# the files: manifest, clean shard, then examples and shard by turns
# tests/kills has the short form of it
@pytest.mark.slow
@pytest.mark.parametrize("at", [5, 6])
def test_killed_and_gone_on_with(tmp_path, hashes, at):
    """SIGKILL between the writing and the naming of a file: what is left is removed."""
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(at), str(HERE)]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
    (folder,) = (tmp_path / "killed").iterdir()
    assert len(leftovers(folder)) == 1
    before = summarise(RunStore.open(folder))
    assert 0 < before.counts.not_run < 40
    assert RunStore.open(folder).verify_bytes() == []  # unfinished, but sound
    model, data = zoo.load("fmnist-cnn-standard"), load("fashion-mnist-mini")
    resumed, whole = (
        evaluate(
            model,
            data.head(40),
            threat=ThreatModel("linf", 0.02, data.lower, data.upper),
            attack=PGDConfig(steps=4, restarts=1),
            out=tmp_path / name,
            device="cpu",
            save_adversarial=True,
            diagnose=False,
        )
        for name in ("killed", "whole")
    )
    assert (resumed.folder, resumed.resumed, whole.resumed) == (folder, True, False)
    assert hashes(resumed) == hashes(whole)
    assert leftovers(folder) == []
    result = verify(resumed.store, model, data)
    assert result.problems == ()
    assert result.replayed == result.broken > 0


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_folder_that_cannot_be_made(linear, tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RecordError, match="cannot make the folder"):
        linear.evaluate(tmp_path / name)
    assert (tmp_path / "file").read_text() == "in the way"


def test_folder_of_something_else_is_left_alone(linear, tmp_path, finished):
    folder = tmp_path / finished[0].folder.name
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(RecordError, match="neither empty nor a run"):
            linear.evaluate(tmp_path, overwrite=overwrite)
    assert (folder / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("left", [{}, {"started": "1"}], ids=["no lease", "lease of the dead"])
def test_a_folder_that_cannot_be_written_any_more(
    linear, tmp_path, finished, hashes, read_only, left
):
    shard = next(finished[0].folder.glob("shards/pgd/*"))
    if left:
        lease = finished[0].folder / "leases" / "pgd" / f"{shard.name}.lease"
        lease.parent.mkdir(parents=True)
        lease.write_text(json.dumps(process(os.getpid()) | left))
    shard.unlink()
    out = tmp_path / "finished"
    with read_only():
        for there in (out, tmp_path / "new"):
            with pytest.raises(RecordError, match="Read-only file system") as refused:
                linear.evaluate(there, save_adversarial=True)
            assert "\n" not in str(refused.value)
    assert hashes(linear.evaluate(out, save_adversarial=True)) == finished[1]
