"""Training progress: a bar per epoch on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from robustbench_c.training.log import EpochRow
from robustbench_c.training.progress import Progress


def summary(row: EpochRow, epochs: int) -> str:
    """One epoch in one line."""
    parts = [
        f"epoch {row.epoch:>{len(str(epochs))}}/{epochs}",
        f"loss {row.loss:.4f}",
        f"train {row.train_accuracy:.1%}",
    ]
    if row.validation_accuracy is not None:
        parts.append(f"held-out {row.validation_accuracy:.1%}")
    if row.validation_robust_accuracy is not None:
        parts.append(f"under attack {row.validation_robust_accuracy:.1%}")
    if row.validation_verified_accuracy is not None:
        parts.append(f"verified {row.validation_verified_accuracy:.1%}")
    if row.sparsity is not None:
        parts.append(f"sparse {row.sparsity:.1%}")
    parts += [f"{row.seconds:.1f} s", f"{row.samples_per_second:,.0f} samples/s"]
    return "  ".join(parts)


class ConsoleProgress(Progress):
    """Shows training on a console; a context manager, so that the bar ends with it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bars.add_task("", state="", visible=False)
        self._epochs = self._steps = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def start(self, epochs: int, steps: int, done: int) -> None:
        """Note the length, and say where a resumed training goes on."""
        self._epochs, self._steps = epochs, steps
        if done:
            self.note(f"{done} of {epochs} epochs are done already")

    def step(self, epoch: int, step: int, loss: float, samples_per_second: float) -> None:
        """Move the bar."""
        self._bars.update(
            self._task,
            description=f"epoch {epoch}/{self._epochs}",
            completed=step,
            total=self._steps,
            state=f"loss {loss:.4f}  {samples_per_second:,.0f} samples/s",
            visible=True,
        )
        if step == self._steps:
            self._bars.update(self._task, state="measuring")

    def epoch(self, row: EpochRow) -> None:
        """Leave the epoch's line above the next bar."""
        self.note(summary(row, self._epochs))
        self._bars.reset(self._task, visible=False)

    def note(self, message: str) -> None:
        """Print one line."""
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)
