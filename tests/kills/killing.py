"""Runs that are killed at random moments, gone on with, and compared with undisturbed ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pyarrow.parquet as pq

from leaderboards.store import RunStore

HERE = Path(__file__).parent
TIMES = ("seconds", "samples_per_second", "diagnostics_seconds", "created")
"""Names of fields that are about time, wherever they stand in a JSON file."""
_MOST = 4
"""Samples of a shard, so that there are many; `--workers` starts processes that have the usual."""
_POLL = 0.003
_PATIENCE = 600.0


@dataclass(frozen=True)
class Case:
    """Something to be killed.

    Attributes:
        name: What it is.
        words: The command, without its place and its workers.
        kills: How many have to land.
        workers: `--workers 2` instead of two commands with `--shard`; None for a training.
    """

    name: str
    words: tuple[str, ...]
    kills: int
    workers: bool | None = False

    @property
    def training(self) -> bool:
        return self.workers is None


@dataclass(frozen=True)
class Kill:
    """A kill that landed: while the run was at work, not before its first shard nor after its end.

    Attributes:
        case: What was killed.
        whom: `all`, or `one` of the workers.
        phase: Steps that those who were killed worked on; of a training the epoch.
        done: Shards that were there; of a training epochs.
        total: Of how many.
        half: Files that were half-written.
    """

    case: str
    whom: str
    phase: str
    done: int
    total: int
    half: int


class Nursery:
    """Where processes come from: see nursery.py."""

    def __init__(self, folder: Path) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, HERE / "nursery.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parents[1],
            env=env | {"PYTHONPATH": str(HERE.parents[1])},
        )
        self._folder, self._count = folder, 0
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def start(self, words: tuple[str, ...], most: int | None) -> Worker:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._count += 1
        log = self._folder / f"{self._count}.log"
        self._process.stdin.write(
            json.dumps({"words": words, "log": str(log), "most": most}) + "\n"
        )
        self._process.stdin.flush()
        return Worker(int(self._process.stdout.readline()), log)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()  # takes its time to end by itself
        self._process.wait(30)


@dataclass(frozen=True)
class Worker:
    """A process, the first of a session of its own."""

    pid: int
    log: Path

    @property
    def pids(self) -> list[int]:
        """Its own number, and those of the processes it has started, while they live."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = path.read_text().rsplit(")", 1)[1].split()
                if int(fields[3]) == self.pid and fields[0] != "Z":
                    found.append(int(path.parent.name))
        return found

    def wait(self) -> None:
        until = time.monotonic() + _PATIENCE
        while self.pids:
            assert time.monotonic() < until, f"never ends: {self.log.read_text()}"
            time.sleep(0.02)

    @property
    def code(self) -> int:
        return int(Path(f"{self.log}.code").read_text())


def start(nursery: Nursery, case: Case, out: Path) -> list[Worker]:
    """Start a run, or go on with it."""
    words = (*case.words, "--out", str(out))
    if case.training:
        return [nursery.start((*words, "--resume"), None)]
    if case.workers:
        return [nursery.start((*words, "--workers", "2"), None)]
    return [nursery.start((*words, "--shard", f"{i}/2"), _MOST) for i in (1, 2)]


def finished(nursery: Nursery, case: Case, out: Path) -> Path:
    """Run a case to its end, and return its folder."""
    workers = start(nursery, case, out)
    for worker in workers:
        worker.wait()
        assert worker.code == 0, worker.log.read_text()
    return place(case, out)


def place(case: Case, out: Path) -> Path:
    """The folder of a run that was begun."""
    return out if case.training else next(path for path in out.iterdir() if path.is_dir())


def done(case: Case, out: Path) -> int:
    """How many shards are there; of a training epochs."""
    if case.training:
        with suppress(OSError):
            return len((out / "log.jsonl").read_text().splitlines())
        return 0
    return sum(1 for _ in out.glob("*/shards/*/*.parquet"))


def at_work(out: Path, pids: list[int]) -> list[str]:
    """What some processes have leases of."""
    found = []
    for path in out.rglob("*.lease"):
        with suppress(OSError, ValueError):
            if json.loads(path.read_text())["pid"] in pids:
                found.append(path.parent.name)
    return found


def torment(
    nursery: Nursery, case: Case, whole: Path, total: int, seconds: float, out: Path, random: Random
) -> list[Kill]:
    """Kill runs of a case until enough kills have landed; each run is brought to its end.

    Args:
        nursery: Where processes come from.
        case: The case.
        whole: Folder of its undisturbed run.
        total: Shards, or epochs, of that.
        seconds: How long that took.
        out: Gets the runs.
        random: Says when, and whom.
    """
    kills: list[Kill] = []
    number = 0
    while len(kills) < case.kills:
        number += 1
        there, alone = out / str(number), False
        while len(kills) < case.kills and not alone:
            alone = not case.training and random.random() < 0.3
            workers = start(nursery, case, there)
            target = done(case, there) + random.randint(0, max(1, total // 5))
            delay = random.uniform(0, 2 * seconds / total)
            if not _until(case, there, workers, target):
                break  # it has ended
            time.sleep(delay)
            if (kill := _kill(case, there, workers, alone, total, random)) is not None:
                kills.append(kill)
            for worker in workers:  # if one is left: to its end
                worker.wait()
                ended = Path(f"{worker.log}.code").exists()
                assert not ended or worker.code == 0, worker.log.read_text()
        if not alone:
            finished(nursery, case, there)
        compare(case, place(case, there), whole)
    return kills


def _until(case: Case, out: Path, workers: list[Worker], target: int) -> bool:
    """Wait until a run is at work and has come to a point; False if it ends before."""
    first = done(case, out)
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        now = done(case, out)
        if now >= target and (now > first or at_work(out, [w for x in workers for w in x.pids])):
            return True
        if all(Path(f"{worker.log}.code").exists() for worker in workers):
            for worker in workers:
                assert worker.code == 0, worker.log.read_text()
            return False
        time.sleep(_POLL)
    raise AssertionError(f"never gets there: {[worker.log.read_text() for worker in workers]}")


def _kill(
    case: Case, out: Path, workers: list[Worker], alone: bool, total: int, random: Random
) -> Kill | None:
    """Kill all of a run's processes or one; None if it was before the first shard or at the end."""
    pids = [pid for worker in workers for pid in worker.pids]
    if not pids:
        return None
    killed = [random.choice(pids)] if alone else pids
    for pid in killed:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    now, half = done(case, out), len([p for p in out.rglob("*.tmp") if p.parent.name != "leases"])
    if case.training:
        over, phase = not (out / "checkpoint.pt").exists(), f"epoch {now + 1}"
    else:
        phase = ", ".join(at_work(out, killed)) or "between shards"
        over = any(out.glob("*/summary.json"))
    if over or now == 0:
        return None
    return Kill(case.name, "one" if alone else "all", phase, now, total, half)


def compare(case: Case, folder: Path, whole: Path) -> None:
    """Make sure that two finished runs are the same, byte for byte but for times."""
    files, wanted = (
        {p.relative_to(f).as_posix(): p for p in f.rglob("*") if p.is_file()}
        for f in (folder, whole)
    )
    for found in (files, wanted):  # logs are of workers, pictures of whoever was first
        for name in [n for n in found if n.startswith("log/") or n.endswith((".png", ".svg"))]:
            del found[name]
    assert files.keys() == wanted.keys(), f"{folder}: {files.keys() ^ wanted.keys()}"
    assert not list(folder.rglob("*.tmp"))
    assert not (folder / "leases").exists()
    for name, path in files.items():
        assert content(path, folder) == content(wanted[name], whole), (
            f"{path} differs from {wanted[name]}"
        )
    if not case.training:
        store = RunStore.open(folder)
        for step in store.steps:
            ids = [i for p in store.shard_paths(step) for i in pq.read_table(p)["sample_id"]]
            assert len(ids) == len(set(ids)) == len(store.completed_ids(step))
        assert len(store.completed_ids("clean")) == store.manifest.data.samples
        assert store.verify_bytes() == []


def content(path: Path, folder: Path) -> bytes:
    """What a file of a run or training says, without times and the name of the folder."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return repr((table.schema, table.drop_columns(["seconds"]).to_pylist())).encode()
    if path.suffix == ".json":
        text = path.read_text().replace(str(folder), "")
        return json.dumps(_without_times(json.loads(text))).encode()
    if path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        return "\n".join(json.dumps(_without_times(json.loads(line))) for line in lines).encode()
    if path.name == "log.csv":
        return b""  # says what log.jsonl says
    return path.read_bytes()


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_times(v) for key, v in value.items() if key not in TIMES}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def table(kills: list[Kill]) -> str:
    """What happened, as text."""
    rows = [("case", "killed", "at work on", "done", "half-written")]
    rows += [(k.case, k.whom, k.phase, f"{k.done}/{k.total}", str(k.half)) for k in kills]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows)
