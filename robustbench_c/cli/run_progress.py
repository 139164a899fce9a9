"""Progress of a run over all that work on it: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from robustbench_c.cli.attacks import KINDS
from robustbench_c.memory import peak_memory

_EVERY_SECONDS = 5.0
_WINDOW = 120.0
"""Seconds by which the time that is left is judged."""


class RunProgress:
    """Shows how far the steps of a run are, whoever works on them.

    Samples and shards that other workers finish count as they come, so what is left is judged by
    the pace of all of them. The peak of memory is this process's.
    """

    def __init__(self, console: Console, settled: str = "settled") -> None:
        self._console = console
        self._settled = settled
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} done, {task.fields[told]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=_WINDOW,
        )
        self._tasks: dict[str, TaskID] = {}
        self._shards: dict[str, str] = {}
        self._shown = 0.0

    def __enter__(self) -> RunProgress:
        from attacks import memory

        self._told = ExitStack()
        self._told.enter_context(memory.telling(self._notice))
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._told.close()

    def _notice(self, text: str) -> None:
        self._console.print(f"notice: {text}", highlight=False, markup=False, soft_wrap=True)

    def __call__(self, step: str, done: int, total: int, settled: int) -> None:
        """Show the state of a step."""
        verb = "broken" if step.startswith(KINDS) else self._settled
        if step.startswith("explain-"):
            verb = "bent" if step == "explain-attack" else "certified"
        told = ", ".join(filter(None, (f"{settled} {verb}", self._shards.get(step), _peak())))
        if step not in self._tasks:  # what was there before says nothing about the pace
            self._tasks[step] = self._bar.add_task(step, total=total, completed=done, told=told)
        self._bar.update(self._tasks[step], completed=done, told=told)
        now = time.monotonic()
        if self._console.is_terminal:
            return
        if done == total or now - self._shown > _EVERY_SECONDS:
            self._shown = now
            line = f"{step}: {done}/{total} done, {told}{self._left(step)}"
            self._console.print(Text(line), soft_wrap=True)

    def shards(self, step: str, done: int, total: int, workers: int) -> None:
        """Be told of the shards of a step, and how many workers are alive."""
        at_it = f", {workers} workers" if workers > 1 else ""
        self._shards[step] = f"{done}/{total} shards{at_it}" if total > 1 else ""

    def _left(self, step: str) -> str:
        """What a step may still take, in words; nothing where nobody knows."""
        task = next(each for each in self._bar.tasks if each.id == self._tasks[step])
        seconds = task.time_remaining
        if not seconds or task.finished:
            return ""
        whole = round(seconds)
        return f", {whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d} left"


def _peak() -> str:
    most = peak_memory()
    return f"peak {most / (1 << 20):.0f} MB" if most else ""
