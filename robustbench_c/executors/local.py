"""Workers on this machine: processes beside this one, which is one of them."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from robustbench_c.executors.gpus import environment_of
from robustbench_c.executors.protocol import Ended, Here, Say, Work

THREADS = "OMP_NUM_THREADS"


class LocalExecutor:
    """Starts all workers but the first, which is this process."""

    def run(self, work: Work, workers: int, here: Here, say: Say) -> tuple[Ended, ...]:
        """Run the workers; see `Executor.run`."""
        ended: list[Ended] = []
        with beside(work, workers, ended, say):
            code = here(f"1/{workers}")
        return (Ended(1, code), *ended)


@contextmanager
def beside(work: Work, workers: int, ended: list[Ended], say: Say) -> Iterator[None]:
    """Run workers 2 and up while the block runs, which does the first one's work.

    Each gets its part of the cores, unless OMP_NUM_THREADS says how many threads it has: the same
    for all, since the number is part of what a run is. Each sees one of several GPUs (`gpus`). Has
    to be entered before torch is imported.

    Args:
        work: The command.
        workers: Processes in all.
        ended: How the others ended is put here.
        say: Told when one fails or is killed: the others do its work.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    os.environ.setdefault(THREADS, str(max(1, (cores or 1) // workers)))
    given = dict(os.environ)
    os.environ.update(environment_of(1, work.arguments, given))
    others = [_start(work, i, workers, given) for i in range(2, workers + 1)]
    stopped = False
    try:
        yield
    except BaseException:
        stopped = True
        for process, _ in others:
            process.terminate()
        raise
    finally:
        for number, (process, log) in enumerate(others, 2):
            code = process.wait()
            log.seek(0)
            lines = log.read().decode(errors="replace").splitlines()
            ended.append(Ended(number, code, lines[-1] if lines else "no message"))
            if code > 0:
                say(f"worker {number} ended with code {code}: {ended[-1].message}")
            elif code < 0 and not (stopped and -code in (signal.SIGTERM, signal.SIGINT)):
                say(f"worker {number} was killed by {_signal(-code)}")
            log.close()


def _signal(number: int) -> str:
    known = {each.value: each.name for each in signal.Signals}
    return known.get(number, f"signal {number}")


def _start(
    work: Work, number: int, workers: int, given: dict[str, str]
) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    log = tempfile.TemporaryFile()  # noqa: SIM115  # closed when the process has ended
    words = work.words(number, workers)
    own = given | environment_of(number, work.arguments, given)
    return subprocess.Popen(words, env=own, stdout=subprocess.DEVNULL, stderr=log), log
