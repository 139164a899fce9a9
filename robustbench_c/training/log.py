"""One row per epoch, as `log.csv` and `log.jsonl`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from certify.sparse import Update
from robustbench_c.files import write_atomically


@dataclass(frozen=True)
class EpochRow:
    """What one epoch showed; accuracies are rates in [0, 1] at the epoch's end.

    Attributes:
        epoch: From 1.
        loss: Mean of the objective over the epoch's samples.
        train_accuracy: Clean accuracy on a fixed part of the training samples, as many as are
            held out (at most 1,000), without augmentation.
        validation_accuracy: Clean accuracy on the held-out samples; None where there are none.
        validation_robust_accuracy: Accuracy on them under the short attack; None without one.
        validation_verified_accuracy: Share of them that interval bounds prove robust; None where
            the objective has no bounds.
        learning_rate: Of the last step.
        eps_scale: Factor of the objective's eps at the last step.
        seconds: Training time of the epoch, without the measurements.
        samples_per_second: Training samples over `seconds`.
        sparsity: Share of the prunable weights that is zero at the epoch's end, counted; None for a
            dense training.
    """

    epoch: int
    loss: float
    train_accuracy: float
    validation_accuracy: float | None
    validation_robust_accuracy: float | None
    validation_verified_accuracy: float | None
    learning_rate: float
    eps_scale: float
    seconds: float
    samples_per_second: float
    sparsity: float | None = None

    @property
    def samples(self) -> int:
        """Samples that were trained on: whole, whatever the times were."""
        return round(self.seconds * self.samples_per_second)


def write_log(folder: Path, rows: Sequence[EpochRow], churn: Sequence[Update] = ()) -> None:
    """Write all rows anew, so that a resume can neither repeat nor lose one.

    Args:
        folder: Gets `log.csv` and `log.jsonl`, and `churn.jsonl` where masks have changed.
        rows: One per epoch.
        churn: One per change of the masks.
    """
    table = io.StringIO()
    writer = csv.DictWriter(table, [field.name for field in fields(EpochRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_atomically(folder / "log.csv", table.getvalue().encode())
    _write_lines(folder / "log.jsonl", rows)
    if churn:
        _write_lines(folder / "churn.jsonl", churn)
    else:  # of an earlier training in this folder
        (folder / "churn.jsonl").unlink(missing_ok=True)


def _write_lines(path: Path, rows: Sequence[EpochRow] | Sequence[Update]) -> None:
    lines = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
    write_atomically(path, lines.encode())
