"""`robust-leaderboard model-card` and `mlflow`: runs for the places where people keep models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_c.cli.records import Jobs, Runs, Strict, read_records


def model_card(
    runs: Runs,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; standard output without.")
    ] = None,
    jobs: Jobs = None,
) -> None:
    """Write a model card's part on robustness: Hugging Face's model-index, and Markdown."""
    from leaderboards.files import atomic_write_bytes
    from leaderboards.model_card import model_card as card_of

    text = card_of(read_records(runs, jobs, strict=True))
    if out is None:
        print(text, end="")
    else:
        atomic_write_bytes(out, text.encode())


def mlflow(
    runs: Runs,
    experiment: Annotated[
        str, typer.Option("--experiment", help="Name of MLflow's experiment.")
    ] = "robustbench-c",
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", help="Server or folder [as MLflow is set to].")
    ] = None,
    jobs: Jobs = None,
    strict: Strict = False,
) -> None:
    """Log runs to MLflow; those that are there are left as they are (extra: mlflow)."""
    from leaderboards.mlflow_log import log_runs

    written, there = log_runs(read_records(runs, jobs, strict), experiment, tracking_uri)
    print(f"{len(written)} runs written to '{experiment}', {there} were there")
