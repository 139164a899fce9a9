"""`--slurm KEY=VALUE`: options of sbatch as given, and what is refused before Slurm sees it."""

from __future__ import annotations

import pytest

from robustbench_c.errors import RunError, UsageError
from robustbench_c.executors import Work
from robustbench_c.executors.slurm import SlurmExecutor
from robustbench_c.executors.slurm_options import cpus_of, minutes_of, slurm_options


def test_options_are_sbatchs_own() -> None:
    given = ["partition=gpu", "--gres=gpu:a100:1", "exclusive", "comment=a = b", "mem=8G"]
    assert slurm_options(given) == {
        "partition": "gpu",
        "gres": "gpu:a100:1",
        "exclusive": None,
        "comment": "a = b",
        "mem": "8G",
    }


@pytest.mark.parametrize(
    ("time", "minutes"),
    [("30", 30), ("1:30", 2), ("2:00:00", 120), ("1-0", 1440), ("1-2:30", 1590), ("0:0:1", 1)],
)
def test_times_are_read_as_sbatch_reads_them(time: str, minutes: int) -> None:
    assert minutes_of({"time": time}) == minutes


def test_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert minutes_of({}) == 60
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cpus_of({}) == 3
    assert cpus_of({"cpus-per-task": "2"}) == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert cpus_of({}) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("partition=", "not KEY=VALUE"),
        ("=x", "not KEY=VALUE"),
        ("p=x", "not KEY=VALUE"),
        ("Partition=x", "not KEY=VALUE"),
        ("comment=x\nrm -r /", "not KEY=VALUE"),
        ("comment=x\x1b[2J", "not KEY=VALUE"),
        ("array=0-9", "not for workers"),
        ("ntasks=4", "--workers says how many"),
        ("output=log", "part us from their logs"),
        ("no-requeue", "brings lost ones back"),
        ("time=soon", "neither minutes"),
        ("time", "neither minutes"),
        ("time=0", "no time"),
        ("cpus-per-task=many", "not a number"),
        ("cpus-per-task=0", "not a number"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        slurm_options([text])
    assert str(caught.value).isprintable()


def test_an_option_is_given_once() -> None:
    with pytest.raises(UsageError, match="partition is given twice"):
        slurm_options(["partition=a", "--partition=b"])


def test_where_no_jobs_can_be_submitted(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    work = Work("robust-eval", ())
    with pytest.raises(RunError, match="no sbatch on the path"):
        SlurmExecutor(tmp_path).run(work, 1, lambda shard: 0, print)
