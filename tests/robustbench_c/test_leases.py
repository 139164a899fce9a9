"""Leases: one worker at a time on a shard, and nothing waits for the dead."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from leaderboards.errors import RecordError
from leaderboards.holders import process
from robustbench_c.leases import Leases

NAME = "00000000-00000009-0123456789abcdef.parquet"


@pytest.fixture
def lease(tmp_path):
    return tmp_path / "leases" / "pgd" / f"{NAME}.lease"


def test_one_alone_has_it(tmp_path, lease):
    first, second = Leases(tmp_path), Leases(tmp_path)
    with first.claim("pgd", NAME) as mine:
        assert mine
        assert lease.exists()
        with second.claim("pgd", NAME) as other:
            assert not other
        assert lease.exists()
        with second.claim("crown", NAME) as elsewhere:
            assert elsewhere
    assert not lease.exists()
    with second.claim("pgd", NAME) as other:
        assert other
    second.clear()
    assert not (tmp_path / "leases").exists()


def test_of_many_threads_one_at_a_time(tmp_path):
    inside, most, entered = [0], [0], [0]
    lock = threading.Lock()

    def work() -> None:
        leases = Leases(tmp_path)
        for _ in range(40):
            with leases.claim("pgd", NAME) as mine:
                if mine:
                    with lock:
                        inside[0] += 1
                        entered[0] += 1
                        most[0] = max(most[0], inside[0])
                    time.sleep(0.0005)
                    with lock:
                        inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert entered[0] > 6


DYING = """
import os, sys
from pathlib import Path
from robustbench_c.leases import Leases
with Leases(Path(sys.argv[1])).claim("pgd", sys.argv[2]) as mine:
    assert mine
    os._exit(9)
"""


def test_that_of_a_dead_process_is_free_at_once(tmp_path, lease):
    ended = subprocess.run([sys.executable, "-c", DYING, tmp_path, NAME], check=False)
    assert ended.returncode == 9
    assert lease.exists()
    with Leases(tmp_path, age=1e9).claim("pgd", NAME) as mine:
        assert mine


def test_a_number_that_another_process_has_now_is_not_its_owner(tmp_path, lease):
    with Leases(tmp_path).claim("pgd", NAME):
        owner = json.loads(lease.read_text())
        lease.write_text(json.dumps(owner | {"started": "1", "token": "other"}))
        with Leases(tmp_path, age=1e9).claim("pgd", NAME) as mine:
            assert mine


@pytest.mark.parametrize("text", ["", "null", "[1]", "{", '{"host": "elsewhere", "pid": 1}'])
def test_that_of_another_machine_is_free_when_nobody_touches_it(tmp_path, lease, text):
    lease.parent.mkdir(parents=True)
    lease.write_text(text)
    leases = Leases(tmp_path, age=0.05)
    for pause in (0.0, 0.06):  # unchanged since the last look, then for as long as the age
        time.sleep(pause)
        with leases.claim("pgd", NAME) as mine:
            assert mine == (pause > 0)


ODD = {
    "folder": lambda path: (path.mkdir(), (path / "file").write_text("x")),
    "pipe": os.mkfifo,
    "link to nowhere": lambda path: path.symlink_to(path.with_name("nowhere")),
    "link to a lease": lambda path: (
        path.with_name("other").write_text("{}"),
        path.symlink_to(path.with_name("other")),
    ),
    "long": lambda path: path.write_text(" " * 5000),
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_what_is_no_lease_is_free_when_nobody_touches_it(tmp_path, lease, make):
    lease.parent.mkdir(parents=True)
    make(lease)
    leases = Leases(tmp_path, age=0.05)
    for pause in (0.0, 0.06):
        time.sleep(pause)
        with leases.claim("pgd", NAME) as mine:
            assert mine == (pause > 0)
    assert not os.path.lexists(lease)


def test_that_of_a_stopped_process_is_free_and_it_knows_when_it_wakes(tmp_path, lease):
    stopped, other = Leases(tmp_path, age=1e9), Leases(tmp_path, age=0.05)
    with stopped.claim("pgd", NAME):  # it lives, and does not touch it
        assert stopped.holds("pgd", NAME)
        for pause in (0.0, 0.06):
            time.sleep(pause)
            with other.claim("pgd", NAME) as mine:
                assert mine == (pause > 0)
                assert stopped.holds("pgd", NAME) != mine
        assert not stopped.holds("pgd", NAME)
    assert not lease.exists()


def test_one_that_lost_its_lease_touches_that_of_nobody_else(tmp_path, lease):
    with Leases(tmp_path, age=0.04).claim("pgd", NAME):
        lease.write_text(json.dumps({"token": "other"}))
        os.utime(lease, (1, 1))
        time.sleep(0.05)
        assert lease.stat().st_mtime == 1
    assert lease.exists()


def test_one_that_cannot_be_removed_is_an_error(tmp_path, lease, monkeypatch):
    lease.parent.mkdir(parents=True)
    lease.write_text(json.dumps(process(os.getpid()) | {"started": "1"}))

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(type(lease), "rename", refuse)
    with (
        pytest.raises(RecordError, match=r"cannot remove .*: Read-only file system"),
        Leases(tmp_path).claim("pgd", NAME),
    ):
        pass


def test_it_is_touched_while_its_owner_works(tmp_path, lease):
    with Leases(tmp_path, age=0.2).claim("pgd", NAME):
        owner = json.loads(lease.read_text())
        lease.write_text(json.dumps(owner | {"host": "elsewhere"}))
        before = lease.stat().st_mtime_ns
        time.sleep(0.15)
        assert lease.stat().st_mtime_ns > before


@pytest.mark.parametrize("hours", [-5, 5])
def test_clocks_that_differ_do_not_matter(tmp_path, lease, monkeypatch, hours):
    """Of a machine whose clock, and that of its files, is hours off: neither stolen nor stuck."""
    lease.parent.mkdir(parents=True)
    lease.write_text('{"host": "elsewhere", "pid": 1}')
    theirs, now = time.time() + 3600 * hours, time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600 * hours)
    leases = Leases(tmp_path, age=0.1)
    for beat in range(4):  # it lives: it touches its lease, by its own clock
        os.utime(lease, (theirs + beat, theirs + beat))
        with leases.claim("pgd", NAME) as mine:
            assert not mine
        time.sleep(0.04)
    time.sleep(0.08)
    with leases.claim("pgd", NAME) as mine:  # it has ended
        assert mine


def test_a_folder_that_leads_elsewhere_is_refused(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.mkdir()
    (run / "leases").symlink_to(other)
    with pytest.raises(RecordError, match="leads out of the record"), Leases(run).claim("pgd", "x"):
        pass
    assert not list(other.iterdir())
