"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from robustbench_c.cli.attacks import KINDS

_EVERY_SECONDS = 5.0


class RunProgress:
    """Shows how far the steps of a run are, and how many samples they settled."""

    def __init__(self, console: Console, settled: str = "settled") -> None:
        self._console = console
        self._settled = settled
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} done, {task.fields[settled]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._shown = 0.0

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, step: str, done: int, total: int, settled: int) -> None:
        """Show the state of a step."""
        verb = "broken" if step.startswith(KINDS) else self._settled
        if step.startswith("explain-"):
            verb = "bent" if step == "explain-attack" else "certified"
        said = f"{settled} {verb}"
        if self._console.is_terminal:
            if step not in self._tasks:
                self._tasks[step] = self._bar.add_task(step, total=total, settled="")
            self._bar.update(self._tasks[step], completed=done, settled=said)
            return
        now = time.monotonic()
        if done == total or now - self._shown > _EVERY_SECONDS:
            self._shown = now
            self._console.print(f"{step}: {done}/{total} done, {said}", highlight=False)
