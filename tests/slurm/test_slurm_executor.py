"""Workers as jobs: how each ends, who comes back, what is left when the one who waits goes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from slurm_cluster import Cluster, until

from robustbench_c.errors import RunError
from robustbench_c.executors import Ended, Work
from robustbench_c.executors.slurm import SlurmExecutor

pytestmark = pytest.mark.slurm

AGAIN = '[ "$(wc -l <began.$n)" -gt 1 ]'


@dataclass(frozen=True)
class Script(Work):
    """Workers that are short: `$n` is which, and `began.$n` has a line for each start."""

    folder: Path = Path()

    def words(self, worker: int, workers: int) -> list[str]:
        text = f'cd "{self.folder}"; n={worker}; echo $$ >>began.$n; {self.program}'
        return ["bash", "-c", text]


@dataclass
class Crew:
    executor: SlurmExecutor
    told: list[str] = field(default_factory=list)
    ended: tuple[Ended, ...] = ()

    def run(self, script: str, workers: int) -> None:
        def nowhere(shard: str | None) -> int:
            raise AssertionError("no worker is in this process")

        work = Script(script, (), self.executor.out)
        self.ended = self.executor.run(work, workers, nowhere, self.told.append)

    def starts(self, worker: int) -> int:
        path = self.executor.out / f"began.{worker}"
        return len(path.read_text().splitlines()) if path.exists() else 0

    @property
    def job_id(self) -> str:
        return self.told[0].split(" as job ")[1].partition(";")[0]


@pytest.fixture
def crew(cluster: Cluster, tmp_path: Path) -> Crew:
    return Crew(SlurmExecutor(tmp_path, grace=1.0, pause=0.2))


def test_each_worker_ends_in_its_own_way_and_who_is_lost_comes_back(crew: Crew) -> None:
    crew.executor = replace(crew.executor, attempts=2)
    crew.run(
        f"""case $n in
          1) echo "says 1" >&2; exit 3;;
          2) {AGAIN} && exit 4; kill -9 $$;;
          3) {AGAIN} && exit 5; kill -9 $PPID; sleep 30;;
          4) kill -9 $$;;
        esac""",
        4,
    )
    assert crew.ended[0] == Ended(1, 3, "says 1")
    assert [end.exit_code for end in crew.ended] == [3, 4, 5, -9]
    assert crew.ended[3].message == "killed by signal 9"
    assert [crew.starts(worker) for worker in (1, 2, 3, 4)] == [1, 2, 2, 2]
    assert "worker 1 ended with code 3: says 1" in crew.told
    assert "worker 2 was lost (killed by signal 9); it is submitted again" in crew.told
    assert any(
        line.startswith("worker 3 was lost (job ") and "without a result" in line
        for line in crew.told
    )
    assert crew.told[-1] == "workers: 4 ended"


def test_jobs_that_slurm_takes_away_come_back_by_slurm(crew: Crew, cluster: Cluster) -> None:
    thread = threading.Thread(target=crew.run, args=(f"{AGAIN} && exit 7; sleep 60", 2))
    thread.start()
    until(lambda: crew.starts(1) and crew.starts(2))
    cluster.ask("scontrol", "requeue", f"{crew.job_id}_0")
    cluster.ask("scancel", "--signal=USR2", f"{crew.job_id}_1")  # as at the end of its time
    thread.join(60)
    assert [end.exit_code for end in crew.ended] == [7, 7]
    assert [crew.starts(1), crew.starts(2)] == [2, 2]
    assert not any("submitted again" in line for line in crew.told)
    for job in (0, 1):
        assert "Restarts=1 " in cluster.ask("scontrol", "show", "job", f"{crew.job_id}_{job}")


def test_when_one_ended_well_the_rest_is_not_waited_for(crew: Crew) -> None:
    crew.executor = replace(crew.executor, options={"cpus-per-task": "8"})
    crew.run("exit 0", 6)
    assert [end.exit_code for end in crew.ended] == [0] * 6
    assert crew.starts(1) == 1
    assert crew.starts(6) == 0
    assert crew.ended[5].message == "not needed: the work was done"


def test_ctrl_c_and_no_wait_leave_the_jobs_in_peace(crew: Crew, cluster: Cluster) -> None:
    class Stopped(list[str]):
        def append(self, line: str) -> None:
            super().append(line)
            if line.startswith("workers: "):
                raise KeyboardInterrupt

    crew.told = Stopped()
    with pytest.raises(KeyboardInterrupt):
        crew.run("sleep 60", 1)
    follow = f"`squeue --jobs={crew.job_id}` shows them, `scancel {crew.job_id}` ends them"
    assert crew.told[-1] == f"the workers go on without this command; {follow}"
    assert cluster.states(crew.job_id)[crew.job_id] in ("PENDING", "RUNNING")
    cluster.ask("scancel", crew.job_id)

    other = Crew(replace(crew.executor, wait=False))
    other.run("sleep 60", 1)
    assert other.ended == ()
    assert other.told[1].startswith(f"`squeue --jobs={other.job_id}` shows them")
    cluster.ask("scancel", other.job_id)


def test_jobs_that_somebody_cancels_stay_so(crew: Crew, cluster: Cluster) -> None:
    crew.executor = replace(crew.executor, options={"cpus-per-task": "4"})
    thread = threading.Thread(target=crew.run, args=("sleep 60", 4))
    thread.start()
    until(lambda: crew.starts(1) and crew.starts(2))
    cluster.ask("scancel", f"{crew.job_id}_3")  # still in the queue
    cluster.ask("scancel", f"{crew.job_id}_0")
    until(lambda: crew.starts(3))
    cluster.ask("scancel", crew.job_id)
    thread.join(60)
    assert crew.ended == tuple(Ended(worker, -15, "cancelled") for worker in (1, 2, 3, 4))
    assert crew.starts(4) == 0


def test_what_slurm_refuses_is_one_line_and_leaves_nothing(
    crew: Crew, capfd: pytest.CaptureFixture[str]
) -> None:
    out = crew.executor.out / "new"
    crew.executor = replace(crew.executor, out=out, options={"partition": "nowhere"})
    with pytest.raises(RunError, match=r"^Slurm refuses the jobs: invalid partition [^\n]*$"):
        crew.run("exit 0", 2)
    assert not out.exists()
    assert capfd.readouterr() == ("", "")
