"""What a job of the cluster does: one worker, in a process of its own. submitit calls it there."""

from __future__ import annotations

import signal
import subprocess

from submitit.helpers import DelayedSubmission


class Worker:
    """Runs a command line.

    Near its time limit, or when it has to make room, a job gets USR2 (or what
    SUBMITIT_PREEMPT_SIGNAL says): submitit then puts it into the queue again, since there is a
    `checkpoint`. Workers go on where the folder stands, so that is the same call once more. The
    command itself must not end by that signal: it works on until it is killed.
    """

    def __call__(self, words: list[str]) -> int:
        """Run it; returns its exit code, below 0 the signal that killed it."""
        process = subprocess.Popen(words, preexec_fn=_ignore)
        try:
            return process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise

    def checkpoint(self, words: list[str]) -> DelayedSubmission:
        """What to call when the job is started again."""
        return DelayedSubmission(self, words)


def _ignore() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
