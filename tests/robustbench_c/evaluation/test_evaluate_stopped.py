"""Whatever stops a run, what is on disk is whole, and the same call finishes it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from leaderboards.errors import RecordError
from leaderboards.listing import list_runs
from leaderboards.store import RunStore
from leaderboards.summary import summarise
from robustbench_c.data import load
from robustbench_c.evaluation import artefacts
from robustbench_c.evaluation.verify import verify

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
    monkeypatch.setattr("robustbench_c.evaluation.attacking._SHARD_SAMPLES", 1000)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    from robustbench_c import evaluate
    from robustbench_c.data import from_tensors

    data = from_tensors(linear.x, linear.y).subset(order)
    config = {"steps": 10, "restarts": 2, "loss": "margin", "goal": "multi-targeted"}
    from attacks.pgd import PGDConfig

    run = evaluate(
        linear.model,
        data,
        threat=linear.threat(),
        attack=PGDConfig(**config),
        device="cpu",
        out=tmp_path,
        batch_size=1,
        save_adversarial=True,
    )
    assert run.resumed
    assert hashes(run) == finished[1]
    assert verify(run.store, linear.model, data).problems == ()


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
    ("error", "raised", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), RecordError, "No space left on device"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
    ],
    ids=["disk full", "Ctrl-C"],
)
def test_stopped_at_every_write(
    linear, tmp_path, finished, hashes, monkeypatch, error, raised, words
):
    for number in range(1, 200):
        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            calls = each_sync(patch, number, error)
            try:
                linear.evaluate(out, save_adversarial=True)
            except raised as stopped:
                assert words in str(stopped)
                assert "\n" not in str(stopped)
            else:
                assert calls[0] < number  # nothing failed: all writes have had their turn
                assert number > 20
                break
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
import os, signal, sys
import torch
sys.path.insert(0, sys.argv[3])
from robustbench_c import data, evaluate, zoo
from robustbench_c.evaluation import attacking
from attacks.pgd import PGDConfig
from attacks.threat import ThreatModel

attacking._SHARD_SAMPLES = 7
attacking.contact_sheet = lambda *_: None
real, calls, at = os.fsync, 0, int(sys.argv[2])

def fsync(handle):
    global calls
    calls += 1
    if calls == at:
        os.kill(os.getpid(), signal.SIGKILL)
    real(handle)

os.fsync = fsync
samples = data.load("fashion-mnist-mini").head(40)
evaluate(
    zoo.load("fmnist-cnn-standard"), samples,
    threat=ThreatModel("linf", 0.02, samples.lower, samples.upper),
    attack=PGDConfig(steps=4, restarts=1), out=sys.argv[1], device="cpu", save_adversarial=True,
)
"""


def run_until(out: Path, at: int) -> int:
    here = Path(__file__).parents[3]
    command = [sys.executable, "-c", KILLED, str(out), str(at), str(here)]
    return subprocess.run(command, check=False, timeout=120).returncode


def test_killed_and_gone_on_with(tmp_path, hashes):
    """SIGKILL between the write of an example file and its name: what is left is removed."""
    assert run_until(tmp_path / "killed", 17) == -signal.SIGKILL
    (folder,) = (tmp_path / "killed").iterdir()
    assert len(leftovers(folder)) == 1
    before = summarise(RunStore.open(folder))
    assert 0 < before.counts.not_run < 40
    assert run_until(tmp_path / "killed", 10**9) == 0
    assert run_until(tmp_path / "whole", 10**9) == 0
    killed, whole = (RunStore.open(tmp_path / name / folder.name) for name in ("killed", "whole"))
    assert [s.content_sha256 for s in summarise(killed).steps] == [
        s.content_sha256 for s in summarise(whole).steps
    ]
    assert leftovers(folder) == []
    from robustbench_c import zoo

    model, data = zoo.load("fmnist-cnn-standard"), load("fashion-mnist-mini")
    result = verify(killed, model, data)
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
