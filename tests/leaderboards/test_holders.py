"""Who holds a lease, as others see it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from leaderboards.errors import RecordError
from leaderboards.holders import AGE, count_holders, has_ended, holders, process


def a_lease(run: Path, shard: str, silent: float = 0.0, **owner: Any) -> Path:
    path = run / "leases" / "pgd" / f"{shard}.lease"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(owner))
    then = time.time() - silent
    os.utime(path, (then, then))
    return path


def test_who_is_alive_and_who_is_lost(tmp_path: Path) -> None:
    me = process(os.getpid())
    a_lease(tmp_path, "a", silent=9 * AGE, **me, since=123.5)  # slow, but its process is there
    a_lease(tmp_path, "b", **{**me, "started": "1"})
    a_lease(tmp_path, "c", silent=AGE / 2, host="elsewhere", pid=7, boot="b", started="1")
    a_lease(tmp_path, "d", silent=2 * AGE, host="elsewhere", pid=7, boot="b", started="1")
    found = holders(tmp_path)
    assert [(each.shard, each.lost) for each in found] == [
        ("a", False),
        ("b", True),
        ("c", False),
        ("d", True),
    ]
    assert (found[0].step, found[0].host, found[0].pid) == ("pgd", me["host"], os.getpid())
    assert found[0].since == 123.5
    assert found[2].heartbeat == pytest.approx(AGE / 2, abs=5)
    assert count_holders(tmp_path) == 2  # by heartbeats alone


@pytest.mark.parametrize(
    "content",
    [b"", b"[1]", b"{", b'{"pid": "x", "host": "a\\nb", "since": -1}', b"\xff", b"[" * 4000],
)
def test_what_strangers_write(tmp_path: Path, content: bytes) -> None:
    a_lease(tmp_path, "a").write_bytes(content)
    (tmp_path / "leases" / "pgd" / "other.txt").write_text("no lease")
    (tmp_path / "leases" / "file").write_text("no step")
    (found,) = holders(tmp_path)
    assert (found.pid, found.since, found.lost) == (0, None, False)
    assert found.host.isprintable()


def test_nobody(tmp_path: Path) -> None:
    assert holders(tmp_path) == []
    assert count_holders(tmp_path) == 0
    assert has_ended({}) is None


def test_leases_elsewhere_are_not_followed(tmp_path: Path) -> None:
    other, run = tmp_path / "other", tmp_path / "run"
    other.mkdir()
    run.mkdir()
    (run / "leases").symlink_to(other)
    with pytest.raises(RecordError, match="leads out of the record"):
        holders(run)


def test_a_process_of_another_container_is_not_judged_by_its_number() -> None:
    """Containers may share the machine, its boot and a host's name, and count from 1 each."""
    me = process(os.getpid())
    assert has_ended(me) is False
    other = {**me, "started": "1"}
    assert has_ended(other) is True
    assert has_ended({**other, "namespace": "pid:[1]"}) is None
    del other["namespace"]  # of an earlier version
    assert has_ended(other) is True
