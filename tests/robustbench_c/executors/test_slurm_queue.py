"""What `squeue` says, as it says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustbench_c.errors import RunError
from robustbench_c.executors.slurm_queue import Place, places


def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    script = tmp_path / "squeue"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_each_job_has_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(tmp_path, monkeypatch, 'echo "7_0|RUNNING|None"; echo "8|PENDING|(a|b)"; echo noise')
    found = places(["7", "8"])
    assert found == {"7_0": Place("RUNNING", "None"), "8": Place("PENDING", "(a|b)")}


def test_what_is_forgotten_is_not_what_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(tmp_path, monkeypatch, 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1')
    assert places(["7"]) == {}
    say(tmp_path, monkeypatch, 'echo "Unable to contact slurm controller" >&2; exit 1')
    assert places(["7"]) is None


def test_no_squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="cannot run squeue"):
        places(["7"])


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "GONE"])
def test_what_is_over(state: str) -> None:
    assert Place(state).is_over


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED"])
def test_what_is_not(state: str) -> None:
    assert not Place(state).is_over
