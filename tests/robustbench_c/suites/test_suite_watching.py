"""How far a suite's folder is, as others see it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from leaderboards.holders import AGE
from robustbench_c.cli import runs
from robustbench_c.errors import DataError
from robustbench_c.suites import Job, JobLog, Worker
from robustbench_c.suites.watching import is_suite, watch_suite

RECORDS = Path(__file__).parents[3] / "records"
JOBS = [Job("eval", (f"--seed={i}",)) for i in range(5)]
OTHERS = [Job("corrupt", ("--model=m",))]


class StoppedError(BaseException):
    """Stands for a kill."""


@pytest.fixture
def out(tmp_path, folders_are_results):
    """The third job of five fails, a worker is killed in the fourth; another suite was here."""

    def execute(job: Job) -> str:
        if job == JOBS[2]:
            raise DataError("no such data")
        if job == JOBS[3]:
            raise StoppedError
        (tmp_path / f"run-{job.id}").mkdir()
        return f"run-{job.id}"

    def describe(error: Exception) -> tuple[str, int]:
        return str(error), 4

    for jobs in (OTHERS, JOBS):
        worker = Worker(jobs, JobLog(tmp_path), execute, describe, lambda line: None)
        try:
            worker.run()
        except StoppedError:
            break
    for path in tmp_path.glob("jobs/*.plan"):
        os.utime(path, (1, 1))  # they may have been written in one tick of the clock
    JobLog(tmp_path).plan(JOBS)
    return tmp_path


def lease(out: Path, job: Job, silent: float = 0.0) -> None:
    path = out / "jobs" / "leases" / "job" / f"{job.id}.lease"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": "node1", "pid": 7, "since": time.time()}))
    os.utime(path, (time.time() - silent,) * 2)


def stages(out: Path) -> list[str]:
    return [job.stage for job in watch_suite(out).jobs]


def test_what_a_job_made_and_is_gone(out):
    (out / f"run-{JOBS[1].id}").rmdir()
    assert stages(out) == ["done", "interrupted", "failed", "interrupted", "left"]


def test_stages(out):
    assert is_suite(out)
    assert stages(out) == ["done", "done", "failed", "interrupted", "left"]
    found = watch_suite(out)
    assert (found.state, found.others, found.count("done")) == ("stopped", 1, 2)
    assert [job.command for job in found.jobs] == [str(job) for job in JOBS]
    assert (found.jobs[2].error, found.jobs[0].result) == ("no such data", f"run-{JOBS[0].id}")
    lease(out, JOBS[3])
    lease(out, JOBS[4], silent=2 * AGE)
    assert stages(out)[3:] == ["at work", "left"]
    assert watch_suite(out).state == "running"
    assert (watch_suite(out).jobs[3].pid, watch_suite(out).jobs[4].lost) == (7, True)


def test_when_all_is_done(tmp_path, folders_are_results):
    (tmp_path / "run").mkdir()
    doing = Worker(JOBS, JobLog(tmp_path), lambda job: "run", lambda error: None, print)
    doing.run()
    assert watch_suite(tmp_path).state == "complete"


@pytest.mark.parametrize("content", [b"", b"{", b'{"jobs": [{"id": "../x", "command": "y"}]}'])
def test_plans_that_nobody_can_read(out, content):
    for path in out.glob("jobs/*.plan"):
        path.write_bytes(content)
    assert sorted(stages(out)) == ["done", "done", "done", "failed", "interrupted"]


@pytest.fixture
def status(monkeypatch, capsys):
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["robust-runs", "status", *map(str, words)])
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(SystemExit) as ended:
            runs.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def test_command(out, status):
    (record,) = RECORDS.glob("breast-cancer-mlp-breast-cancer-auto-*")
    run = shutil.copytree(record, out / record.name)
    shutil.rmtree(run / "shards" / "ibp")
    place = run / "leases" / "ibp" / "00000000-00000031-abc.parquet.lease"
    place.parent.mkdir(parents=True)
    place.write_text('{"host": "node2", "pid": 9}')
    lease(out, JOBS[3])
    code, told, err = status(out)
    assert code == 0, err
    lines = [" ".join(line.replace("│", " ").split()) for line in told.splitlines()]
    assert "5 jobs: 2 done, 1 failed, 1 at work, 0 interrupted, 1 left; " in told
    assert "1 more job, of other suites or options, in this folder" in lines
    assert "robust-eval --seed=2 failed: no such data" in lines
    assert any(line.startswith("robust-eval --seed=3 at work node1 7 ") for line in lines)
    assert any(line.startswith(f"{record.name} ibp 0 ") for line in lines)
    assert lines[-1] == "state: running"
    found = json.loads(status(out, "--json")[1])
    assert [job["stage"] for job in found["jobs"]].count("at work") == 1
    assert found["runs"][0]["run_id"] == record.name


def test_a_flood_is_cut_short(out, status):
    many = [Job("eval", (f"--seed={i}",)) for i in range(60)]
    for path in out.glob("jobs/*.plan"):
        os.utime(path, (1, 1))
    JobLog(out).plan(many)
    for job in many:
        lease(out, job)
    lines = [line.strip() for line in status(out)[1].splitlines()]
    assert "and 40 more jobs" in lines
    assert len(lines) < 30


def test_what_is_neither(tmp_path, status):
    code, _, err = status(tmp_path)
    assert code == 6
    assert "is neither a run nor a suite's folder: it has no manifest.json and no jobs" in err
