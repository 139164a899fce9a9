"""The console scripts by name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import typer

MODULES = {
    "robust-eval": "evaluate",
    "robust-train": "train",
    "robust-runs": "runs",
    "robust-shrink": "shrink",
    "robust-smooth": "smooth",
    "robust-corrupt": "corrupt",
    "robust-leaderboard": "leaderboard",
    "robust-report": "report",
}
"""Of each script, its module in this package."""


def run_program(name: str, arguments: Sequence[str]) -> None:
    """Run a console script in this process, as if it had been called; raises SystemExit."""
    sys.argv = [name, *arguments]
    import_module(f"robustbench_c.cli.{MODULES[name]}").main()


def app_of(name: str) -> typer.Typer:
    """Return the typer application of a console script."""
    app: typer.Typer = import_module(f"robustbench_c.cli.{MODULES[name]}").app
    return app
