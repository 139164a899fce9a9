"""How workers share the jobs of a suite."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from leaderboards.errors import RecordError
from robustbench_c.errors import DataError, RunError
from robustbench_c.suites import Job, JobLog, Worker

JOBS = [Job("eval", (f"--seed={i}",)) for i in range(6)]


pytestmark = pytest.mark.usefixtures("folders_are_results")


class Doing:
    """Counts what was done by whom; a job takes some time, or fails."""

    def __init__(self, fails: dict[Job, Exception] | None = None, seconds: float = 0.0) -> None:
        self.done: list[Job] = []
        self.said: list[str] = []
        self.fails, self.seconds = fails or {}, seconds

    def __call__(self, job: Job) -> str:
        time.sleep(self.seconds)
        self.done.append(job)
        if job in self.fails:
            raise self.fails[job]
        (self.out / f"run-{job.id}").mkdir(exist_ok=True)
        return f"run-{job.id}"

    def work(self, jobs: list[Job], out: Path, start: float = 0.0) -> None:
        self.out = out
        Worker(jobs, JobLog(out, start), self, _describe, self.said.append).run()


def _describe(error: Exception) -> tuple[str, int] | None:
    code = getattr(error, "exit_code", None)
    return None if code is None else (str(error), code)


def test_one_worker_does_each_job_once(tmp_path):
    doing = Doing()
    doing.work(JOBS, tmp_path)
    doing.work(JOBS, tmp_path)
    assert doing.done == JOBS
    records = [JobLog(tmp_path).read(job.id) for job in JOBS]
    assert [record.state for record in records] == ["done"] * 6
    assert [record.result for record in records] == [f"run-{job.id}" for job in JOBS]
    assert not (tmp_path / "jobs" / "leases").exists()


def test_a_worker_begins_at_its_own_place(tmp_path):
    doing = Doing()
    doing.work(JOBS, tmp_path, start=0.5)
    assert doing.done == JOBS[3:] + JOBS[:3]


def test_models_are_trained_before_they_are_asked_for(tmp_path):
    training = Job("train", ("--recipe=pgd",), name="m")
    doing = Doing()
    doing.work([*JOBS, training], tmp_path)
    assert doing.done == [training, *JOBS]


def test_workers_share_jobs_and_help_with_the_last(tmp_path):
    doings = [Doing(seconds=0.05), Doing(seconds=0.05)]
    threads = [
        threading.Thread(target=doing.work, args=(JOBS[:3], tmp_path, i / 2))
        for i, doing in enumerate(doings)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {job for doing in doings for job in doing.done} == set(JOBS[:3])
    assert all(JobLog(tmp_path).read(job.id).state == "done" for job in JOBS[:3])
    for doing in doings:
        own = [line for line in doing.said if "helps" not in line]
        assert len(own) >= 1
    assert sum("helps" not in line for doing in doings for line in doing.said) == 3


def test_what_fails_stops_no_other_and_is_tried_again(tmp_path):
    doing = Doing({JOBS[1]: DataError("no\ndata")})
    doing.work(JOBS, tmp_path)
    assert doing.done == JOBS
    record = JobLog(tmp_path).read(JOBS[1].id)
    assert (record.state, record.exit_code, record.error) == ("failed", 4, "no data")
    assert "[2/6] failed (4): no data" in doing.said
    again = Doing()
    again.work(JOBS, tmp_path)
    assert again.done == [JOBS[1]]
    assert JobLog(tmp_path).read(JOBS[1].id).state == "done"


def test_a_defect_of_ours_stops_the_worker(tmp_path):
    with pytest.raises(ZeroDivisionError):
        Doing({JOBS[0]: ZeroDivisionError()}).work(JOBS, tmp_path)
    assert JobLog(tmp_path).read(JOBS[0].id).state == "begun"
    assert JobLog(tmp_path).read(JOBS[1].id) is None


def test_a_job_that_was_left_is_done_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Doing({JOBS[2]: KeyboardInterrupt()}).work(JOBS, tmp_path)
    again = Doing()
    again.work(JOBS, tmp_path)
    assert again.done == JOBS[2:]


def test_what_is_gone_is_done_again(tmp_path):
    Doing().work(JOBS, tmp_path)
    (tmp_path / f"run-{JOBS[3].id}").rmdir()
    again = Doing()
    again.work(JOBS, tmp_path)
    assert again.done == [JOBS[3]]


def test_a_record_of_another_job_counts_for_nothing(tmp_path):
    Doing().work(JOBS[:2], tmp_path)
    jobs = tmp_path / "jobs"
    (jobs / f"{JOBS[0].id}.json").write_bytes((jobs / f"{JOBS[1].id}.json").read_bytes())
    again = Doing()
    again.work(JOBS[:2], tmp_path)
    assert again.done == [JOBS[0]]


def test_a_helper_that_fails_says_nothing_of_the_job(tmp_path):
    log = JobLog(tmp_path)
    log.prepare()
    helper = Doing({JOBS[0]: DataError("no memory here")}, seconds=0.0)
    helper.out = tmp_path
    with log.leases.claim("job", JOBS[0].id) as mine:
        assert mine
        Worker(JOBS[:1], JobLog(tmp_path), helper, _describe, helper.said.append)._try(
            JOBS[0], helps=True
        )
    assert log.read(JOBS[0].id) is None


def test_a_model_that_was_trained_and_then_changed_is_refused(tmp_path):
    training = Job("train", ("--recipe=pgd",), name="m")
    asks = Job("eval", ("--model=trained:m",))

    class Training(Doing):
        def __call__(self, job: Job) -> str:
            if not job.trains:
                return super().__call__(job)
            self.done.append(job)
            (self.out / job.folder).mkdir(parents=True)
            for path in job.made:
                (self.out / path).write_bytes(b"trained")
            return job.folder

    doing = Training()
    doing.out = tmp_path
    log = JobLog(tmp_path)
    Worker([training], log, doing, _describe, doing.said.append, [training]).run()
    assert set(log.read(training.id).files) == {f"trained:{path}" for path in training.made}
    (tmp_path / training.made[0]).write_bytes(b"another")
    for jobs in ([training, asks], [training]):
        with pytest.raises(RunError, match=r"m\.safetensors has changed"):
            Worker(jobs, log, doing, _describe, doing.said.append, [training]).run()


def test_a_file_that_changed_is_refused(tmp_path):
    model = tmp_path / "model.pt"
    model.write_bytes(b"one")
    jobs = [Job("eval", (f"--seed={i}", f"--model={model}"), (str(model),)) for i in range(2)]
    Doing().work(jobs[:1], tmp_path)
    model.write_bytes(b"two")
    doing = Doing()
    with pytest.raises(RunError, match=r"model\.pt has changed since a job of this folder began"):
        doing.work(jobs, tmp_path)
    assert doing.done == []
    model.write_bytes(b"one")
    doing.work(jobs, tmp_path)
    assert doing.done == jobs[1:]


def test_a_file_that_changes_between_jobs_is_refused(tmp_path):
    model = tmp_path / "model.pt"
    model.write_bytes(b"one")
    jobs = [Job("eval", (f"--seed={i}",), (str(model),)) for i in range(2)]

    class Changing(Doing):
        def __call__(self, job: Job) -> str:
            model.write_bytes(b"another")
            return super().__call__(job)

    doing = Changing()
    with pytest.raises(RunError, match="has changed"):
        doing.work(jobs, tmp_path)
    assert doing.done == jobs[:1]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"format": 2}', b"\xff", b'{"result": "../../etc"}']
)
def test_what_is_no_record_of_a_job(tmp_path, content):
    log = JobLog(tmp_path)
    log.prepare()
    (log.folder / f"{JOBS[0].id}.json").write_bytes(content)
    with pytest.raises(RunError, match=r"no record of a job.*; remove it"):
        Doing().work(JOBS, tmp_path)


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot make the folder"):
        Doing().work(JOBS, tmp_path / "file")


def test_a_worker_that_was_overtaken_leaves_the_job_to_the_other(tmp_path):
    """It was stopped for long: what it says of its failure would be taken for the other's."""
    training = Job("train", ("--recipe=pgd",), name="m")
    doing = Doing()
    lost = []

    def overtaken(job: Job) -> str:
        if job.trains and not lost:
            lost.append(job)
            next(tmp_path.rglob("*.lease")).write_text("{}")  # it is another's now
            later = threading.Timer(0.2, finish, [job])
            later.start()
            raise RunError("this process no longer holds the folder")
        return doing(job)

    def finish(job: Job) -> None:
        log = JobLog(tmp_path)
        states.append(log.read(job.id).state)
        log.write(job, log.read(job.id).model_copy(update={"state": "done", "result": doing(job)}))

    states: list[str] = []
    doing.out = tmp_path
    Worker([training, *JOBS[:2]], JobLog(tmp_path), overtaken, _describe, doing.said.append).run()
    assert states == ["begun"]  # not failed
    assert doing.done == [training, *JOBS[:2]]  # and nothing was begun without its model
