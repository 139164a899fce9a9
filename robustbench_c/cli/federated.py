"""The options of federated training, and its report for each client as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path

Clients = Annotated[
    int | None, typer.Option(help="Share the data out to this many simulated clients.")
]
Alpha = Annotated[
    float | None,
    typer.Option(help="How alike clients are: small, each has few classes [0.5, of --clients]."),
]
LocalEpochs = Annotated[
    int | None,
    typer.Option(help="Epochs of a client between two averages [1, of --clients]."),
]


def print_clients(folder: Path) -> None:
    """Print what the common model does for each client, if the folder holds such a report."""
    import json

    from rich.table import Table

    from robustbench_c.cli.console import wide_console

    path = folder / "clients.json"
    if not path.exists():
        return
    table = Table("client", "trains on", "held out", "classes", "accuracy", "under attack")
    for row in json.loads(path.read_text()):
        shares = (row["accuracy"], row["robust_accuracy"])
        table.add_row(
            str(row["client"]),
            str(row["samples"]),
            str(row["held_out"]),
            " ".join(map(str, row["labels"])),
            *("-" if share is None else f"{share:.2%}" for share in shares),
        )
    wide_console().print(table)
