"""Workers beside this process that are killed."""

from __future__ import annotations

import pytest

from robustbench_c.executors import Work
from robustbench_c.executors.local import beside


class Shell(Work):
    def words(self, worker: int, workers: int) -> list[str]:
        return ["sh", "-c", *self.arguments]


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize(
    ("script", "line", "code"),
    [
        ("kill -9 $$", "worker 2 was killed by SIGKILL", -9),
        ("kill -15 $$", "worker 2 was killed by SIGTERM", -15),
        ("echo no >&2; exit 6", "worker 2 ended with code 6: no", 6),
        ("exit 0", None, 0),
    ],
)
def test_one_that_is_killed_is_told_of(script, line, code):
    ended, told = [], []
    with beside(Shell("robust-eval", (script,)), 2, ended, told.append):
        pass
    assert told == ([line] if line else [])
    assert [each.exit_code for each in ended] == [code]


def test_nothing_is_said_of_one_that_this_process_stops():
    ended, told = [], []
    with (
        pytest.raises(KeyboardInterrupt),
        beside(Shell("robust-eval", ("exec sleep 60",)), 2, ended, told.append),
    ):
        raise KeyboardInterrupt
    assert (told, [each.exit_code for each in ended]) == ([], [-15])
