"""What a training run tells whoever watches it."""

from __future__ import annotations

from robustbench_c.training.log import EpochRow


class Progress:
    """Watches a training run; the base says nothing. Override what is of interest."""

    def start(self, epochs: int, steps: int, done: int) -> None:
        """Training begins: `steps` per epoch, `done` epochs already in the checkpoint."""

    def step(self, epoch: int, step: int, loss: float, samples_per_second: float) -> None:
        """One optimiser step is done; both numbers count from 1, `loss` is the epoch's mean."""

    def epoch(self, row: EpochRow) -> None:
        """One epoch is done, measured, and in the checkpoint."""

    def note(self, message: str) -> None:
        """Something the user should know, in one line."""
