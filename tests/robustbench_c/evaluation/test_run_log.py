"""The log that a worker writes of a run."""

from __future__ import annotations

import json
import os
import socket
from types import SimpleNamespace

import pytest
from toy_certifiers import LinearCertifier

from attacks.pgd import PGDConfig
from leaderboards.holders import process
from leaderboards.worklog import parse_lines, read_logs
from robustbench_c import run_log
from robustbench_c.evaluation import sharing
from robustbench_c.evaluation.certifying import CertifyConfig
from robustbench_c.leases import Leases

PGD = PGDConfig(steps=2, restarts=1, loss="margin")


@pytest.fixture
def run(linear, small_shards, tmp_path):
    certifier = LinearCertifier.make
    return linear.evaluate(tmp_path, attack=PGD, certify=CertifyConfig("ibp"), certifier=certifier)


def test_every_shard_is_there_with_its_time(run):
    (log,) = read_logs(run.folder).workers
    first, *rest = log.lines
    assert (first.event, first.resumed, first.pid) == ("started", False, os.getpid())
    assert first.namespace == process(os.getpid())["namespace"]
    assert first.versions["torch"] == run.store.manifest.versions["torch"]
    begun = {line.step: line for line in rest if line.event == "step"}
    assert list(begun) == ["pgd", "ibp"]
    for step, told in begun.items():
        done = [line for line in rest if line.event == "shard" and line.step == step]
        rows = run.store.read_step(step)
        assert sorted(line.shard for line in done) == [p.name for p in run.store.shard_paths(step)]
        assert (told.shards, told.samples, told.samples_there) == (len(done), len(rows), 0)
        assert sum(line.samples for line in done) == len(rows)
        assert sum(line.settled for line in done) == rows["verdict"].notna().sum()
        assert all(line.seconds > 0 and line.peak_memory > 1 << 20 for line in done)
    assert (log.last.event, log.last.how) == ("ended", "complete")
    assert log.skipped == 0


def test_what_is_complete_is_not_logged_again_and_a_resume_is(run, linear, tmp_path):
    again = {"attack": PGD, "certify": CertifyConfig("ibp"), "certifier": LinearCertifier.make}
    linear.evaluate(tmp_path, **again)
    assert len(read_logs(run.folder).workers) == 1
    gone = run.store.shard_paths("pgd")[1]
    gone.unlink()
    linear.evaluate(tmp_path, **again)
    _, second = read_logs(run.folder).workers
    assert [line.event for line in second.lines] == ["started", "step", "shard", "ended"]
    told, done = second.lines[1:3]
    assert second.lines[0].resumed
    assert (told.shards - told.shards_there, done.shard) == (1, gone.name)
    assert told.samples - told.samples_there == done.samples


def test_how_it_ended_otherwise(linear, small_shards, tmp_path):
    def stop(step, done, total, settled):
        if done > 10:
            raise error

    for error, how in ((KeyboardInterrupt(), "stopped"), (OSError(28, "No space left"), "failed")):
        with pytest.raises(type(error)):
            linear.evaluate(tmp_path / how, attack=PGD, progress=stop)
        (run,) = (tmp_path / how).iterdir()
        (log,) = read_logs(run).workers
        assert (log.last.event, log.last.how) == ("ended", how)
    assert "No space left" in log.last.text


def test_waiting_and_taking_over_are_told(run, linear, tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, "_PAUSE", 0.01)
    again = {"attack": PGD, "certify": CertifyConfig("ibp"), "certifier": LinearCertifier.make}
    path = run.store.shard_paths("pgd")[0]
    content = path.read_bytes()
    path.unlink()
    with Leases(run.folder).claim("pgd", path.name), monkeypatch.context() as patch:
        patch.setattr(run_log, "still_waiting", lambda: path.write_bytes(content))
        linear.evaluate(tmp_path, **again)
    told = read_logs(run.folder).workers[-1].lines
    assert [line.event for line in told] == ["started", "step", "waiting", "ended"]
    path.unlink()
    lease = run.folder / "leases" / "pgd" / f"{path.name}.lease"
    lease.parent.mkdir(parents=True, exist_ok=True)
    lease.write_text(json.dumps(process(os.getpid()) | {"started": "1"}))
    linear.evaluate(tmp_path, **again)
    told = read_logs(run.folder).workers[-1].lines
    assert [line.event for line in told] == ["started", "step", "takeover", "shard", "ended"]
    assert (told[2].owner, told[2].shard) == (f"{socket.gethostname()} {os.getpid()}", path.name)


@pytest.fixture
def store(tmp_path):
    told = {"versions": {}, "device_name": "a CPU", "tiles": (32,), "threads": 1}
    return SimpleNamespace(folder=tmp_path, manifest=SimpleNamespace(**told))


def test_notices_are_one_line_and_go_to_the_run_at_hand(store):
    run_log.notice("nobody is at work: this goes nowhere")
    with run_log.logged(store, "cpu", True) as log:
        run_log.notice("out of memory:\nhalf the batch " + 5000 * "\U0001f600")
    lines, skipped = parse_lines(log.path.read_bytes())
    assert [line.event for line in lines] == ["started", "notice", "ended"]
    assert lines[1].text.startswith("out of memory: half the batch ")
    assert skipped == 0


def test_a_log_that_cannot_be_written_stops_nothing(store, monkeypatch):
    write, full = os.write, [True]

    def half(handle, data):
        return write(handle, data[:20] if full[0] else data)

    monkeypatch.setattr(os, "write", half)
    with run_log.logged(store, "cpu", True) as log:
        run_log.notice("lost")
        full[0] = False
        run_log.notice("kept")
    lines, skipped = parse_lines(log.path.read_bytes())
    assert ([line.text for line in lines[:1]], skipped) == (["kept"], 2)
    for path in (store.folder / "log").iterdir():
        path.unlink()
    (store.folder / "log").rmdir()
    (store.folder / "log").write_text("in the way")
    with run_log.logged(store, "cpu", True):
        run_log.notice("lost")
