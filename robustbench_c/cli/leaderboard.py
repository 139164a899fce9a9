"""`robust-leaderboard`: boards of runs, and whether a record is fit for one. Needs no torch."""

from __future__ import annotations

from robustbench_c.cli import validate
from robustbench_c.cli.app import new_app, run_app

app = new_app()
app.command("validate")(validate.validate)


@app.callback()
def leaderboard() -> None:
    """Boards of runs, and the checks of what goes on them."""


def main() -> None:
    """Run the command line."""
    run_app(app, "robust-leaderboard")
